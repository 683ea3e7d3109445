//! Observers: read the devices whose shards this replica holds.

use crate::context::Context;

/// Runs until the context ends.
pub async fn run(context: Context) {
    context.cancel.cancelled().await;
}
