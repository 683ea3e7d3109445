//! The place where BMCs that fetch for themselves get an image: an unguessable path, for a while, for one image.

use crate::port::Image;
use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio_util::io::ReaderStream;

/// How often one offer is served: some BMCs ask for the head first, and most try again after a cut.
const MAX_FETCHES: u32 = 8;

/// Hands out images to BMCs. Everything that is not offered right now is not there.
#[derive(Clone)]
pub struct ImageEndpoint {
    base: String,
    grants: Arc<Mutex<HashMap<String, Grant>>>,
}

struct Grant {
    path: PathBuf,
    file_name: String,
    size: u64,
    until: Instant,
    fetches: u32,
}

impl ImageEndpoint {
    /// An endpoint that BMCs reach under `base`, for example `https://kiban.example:8443`.
    #[must_use]
    pub fn new(base: &str) -> Self {
        Self {
            base: base.trim_end_matches('/').to_owned(),
            grants: Arc::default(),
        }
    }

    /// Offers an image for a while. The path is 256 random bits; it ends when the offer is dropped, when the time is over,
    /// or when it was fetched a few times.
    #[must_use]
    pub fn offer(&self, image: &Image, time: Duration) -> Offer {
        let token = super::hex(&rand::random::<[u8; 32]>());
        let grant = Grant {
            path: image.path.clone(),
            file_name: image.file_name.clone(),
            size: image.size,
            until: Instant::now() + time,
            fetches: 0,
        };
        let mut grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        grants.retain(|_, grant| grant.until > now);
        grants.insert(token.clone(), grant);
        let name = image.file_name.replace(' ', "%20");
        Offer {
            url: format!("{}/images/{token}/{name}", self.base),
            token,
            grants: self.grants.clone(),
        }
    }

    /// The routes, to be served alone or beside others.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/images/{token}/{name}", get(serve))
            .with_state(self.grants.clone())
    }
}

/// An image on offer. Dropping it takes the offer back.
pub struct Offer {
    url: String,
    token: String,
    grants: Arc<Mutex<HashMap<String, Grant>>>,
}

impl Offer {
    /// Where a BMC gets it. Treat as a secret: who has it has the image.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How often it was asked for.
    #[must_use]
    pub fn fetches(&self) -> u32 {
        let grants = self.grants.lock().unwrap_or_else(PoisonError::into_inner);
        grants.get(&self.token).map_or(0, |grant| grant.fetches)
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.grants
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.token);
    }
}

async fn serve(
    State(grants): State<Arc<Mutex<HashMap<String, Grant>>>>,
    Path((token, name)): Path<(String, String)>,
    method: Method,
) -> Response {
    let granted = {
        let mut grants = grants.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        grants
            .get_mut(&token)
            .filter(|grant| grant.until > now && grant.fetches < MAX_FETCHES && grant.file_name == name)
            .map(|grant| {
                grant.fetches += u32::from(method == Method::GET);
                (grant.path.clone(), grant.size)
            })
    };
    let Some((path, size)) = granted else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
    ];
    match tokio::fs::File::open(path).await {
        Ok(file) => (
            headers,
            Body::from_stream(ReaderStream::with_capacity(file, 64 * 1024)),
        )
            .into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}
