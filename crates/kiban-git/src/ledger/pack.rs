//! New objects go to the local copy as one pack: a file per object would be millions of files.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, write::ZlibEncoder};
use git2::{ObjectType, Oid, Repository};
use sha1::{Digest, Sha1};

use super::overlay::Staged;

/// Writes the staged objects as a pack and its index.
pub(super) fn write(repo: &Repository, staged: Staged) -> Result<(), git2::Error> {
    if staged.order.is_empty() {
        return Ok(());
    }
    let odb = repo.odb()?;
    let mut out = PackOut::begin(odb.packwriter()?, staged.order.len())?;
    for (kind, data) in staged.order.iter().filter_map(|id| staged.objects.get(id)) {
        out.object(*kind, data).map_err(failed)?;
    }
    out.finish().map_err(failed)
}

fn failed(e: io::Error) -> git2::Error {
    git2::Error::from_str(&format!("write a pack: {e}"))
}

/// Bytes gathered before libgit2's indexer sees them: it is called for each write.
const FLUSH: usize = 256 * 1024;

struct PackOut<'r> {
    to: git2::OdbPackwriter<'r>,
    hash: Sha1,
    buffer: Vec<u8>,
}

impl<'r> PackOut<'r> {
    fn begin(to: git2::OdbPackwriter<'r>, count: usize) -> Result<Self, git2::Error> {
        let count =
            u32::try_from(count).map_err(|_| git2::Error::from_str("too many objects for one pack"))?;
        let mut out = PackOut {
            to,
            hash: Sha1::new(),
            buffer: Vec::with_capacity(FLUSH + 4096),
        };
        out.put(b"PACK\0\0\0\x02")
            .and_then(|()| out.put(&count.to_be_bytes()))
            .map_err(failed)?;
        Ok(out)
    }

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

/// Packs that may be there before some are merged: libgit2 looks through all of them for each object.
const MAX_PACKS: usize = 50;

/// Merges the smallest packs into one, leaving out those that dwarf them, so that each object is written again only
/// about as often as the ledger doubles. Returns whether files were replaced, and the repository is to be opened again.
pub(super) fn consolidate(repo: &Repository) -> Result<bool, git2::Error> {
    let folder = repo.path().join("objects/pack");
    let mut packs = list(&folder).map_err(failed)?;
    if packs.len() <= MAX_PACKS {
        return Ok(false);
    }
    packs.sort();
    let (mut taken, mut sum) = (0, 0);
    for (size, _) in &packs {
        if taken >= MAX_PACKS / 2 && *size > 2 * sum {
            break;
        }
        taken += 1;
        sum += size;
    }
    packs.truncate(taken);
    let mut ids = Vec::new();
    for (_, index) in &packs {
        ids.extend(objects_of(&fs::read(index).map_err(failed)?)?);
    }
    ids.sort_unstable();
    ids.dedup();
    let odb = repo.odb()?;
    let mut out = PackOut::begin(odb.packwriter()?, ids.len())?;
    for id in ids {
        let object = odb.read(id)?;
        out.object(object.kind(), object.data()).map_err(failed)?;
    }
    out.finish().map_err(failed)?;
    // Only now that all of it is in the new one. A crash in between leaves objects twice, which Git does not mind.
    for (_, index) in &packs {
        fs::remove_file(index.with_extension("pack")).map_err(failed)?;
        fs::remove_file(index).map_err(failed)?;
    }
    Ok(true)
}

/// The packs of a folder: size in bytes, and the path of the index.
fn list(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut packs = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "idx") {
            packs.push((fs::metadata(path.with_extension("pack"))?.len(), path));
        }
    }
    Ok(packs)
}

/// The ids in a pack's index, version 2: eight bytes of head, 256 counts, then the ids in order.
fn objects_of(index: &[u8]) -> Result<Vec<Oid>, git2::Error> {
    let broken = || git2::Error::from_str("the index of a pack is not one of version 2");
    if index.get(..8) != Some(b"\xfftOc\0\0\0\x02") {
        return Err(broken());
    }
    let count = index
        .get(1028..1032)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u32::from_be_bytes)
        .ok_or_else(broken)?;
    let ids = index.get(1032..1032 + 20 * count as usize).ok_or_else(broken)?;
    ids.chunks_exact(20).map(Oid::from_bytes).collect()
}
