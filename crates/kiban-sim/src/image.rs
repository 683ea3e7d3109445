//! Emulated firmware images: one JSON header line that says what the image is, then padding.
//!
//! ```text
//! KIBANFW1 {"class":"BIOS","version":"1.15.2","models":["PowerEdge R650"]}\n
//! <deterministic padding>
//! ```

use crate::model::{Activation, Class};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What every emulated image starts with.
pub const MAGIC: &str = "KIBANFW1 ";

/// The header must end within so many bytes; a BMC looks no further.
pub const MAX_HEADER_BYTES: usize = 4096;

/// What an emulated image says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageHeader {
    /// The component class that it updates.
    pub class: Class,
    /// The version that is read back once it is active.
    pub version: String,
    /// Globs over the model name; an empty list fits nothing.
    pub models: Vec<String>,
    /// A glob over the component's id or product name, for a class that a machine has more than one kind of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// How it becomes active, when other than the component's own rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// The version that must already run; as with real multi-hop updates, the BMC refuses the image below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requires: Option<String>,
}

/// Why bytes are not an emulated image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The magic is absent.
    #[error("read the image's magic")]
    Magic,
    /// The header has no end.
    #[error("find the end of the image's header within {MAX_HEADER_BYTES} bytes")]
    Unterminated,
    /// The header is not what it should be.
    #[error("parse the image's header")]
    Header(#[source] serde_json::Error),
}

impl ImageHeader {
    /// A header for one class, version and model glob.
    pub fn new(class: Class, version: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            class,
            version: version.into(),
            models: vec![model.into()],
            component: None,
            activation: None,
            requires: None,
        }
    }

    /// Reads the header from the first bytes of an image.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let rest = bytes.strip_prefix(MAGIC.as_bytes()).ok_or(ImageError::Magic)?;
        let window = &rest[..rest.len().min(MAX_HEADER_BYTES)];
        let end = window
            .iter()
            .position(|b| *b == b'\n')
            .ok_or(ImageError::Unterminated)?;
        serde_json::from_slice(&window[..end]).map_err(ImageError::Header)
    }
}

/// An image's bytes and the digest that a baseline names it by.
#[derive(Debug, Clone)]
pub struct Image {
    /// The whole file.
    pub bytes: Vec<u8>,
    /// SHA-256 of the file, lower-case hexadecimal.
    pub sha256: String,
}

/// Makes an image of `size` bytes (more if the header needs more). The same header and size give the same bytes.
pub fn build(header: &ImageHeader, size: usize) -> Image {
    // The header is plain data whose serialization cannot fail; an empty line would be refused by every BMC.
    let json = serde_json::to_string(header).unwrap_or_default();
    let mut bytes = format!("{MAGIC}{json}\n").into_bytes();
    let mut state = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3)
    });
    while bytes.len() < size {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let word = (state >> 16).to_le_bytes();
        let take = word.len().min(size - bytes.len());
        bytes.extend_from_slice(&word[..take]);
    }
    let sha256 = hex(&Sha256::digest(&bytes));
    Image { bytes, sha256 }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut s, b| {
            let _ = write!(s, "{b:02x}");
            s
        })
}

/// Whether `text` fits a glob of `*` and `?`, without regard to case. Linear in practice: one backtracking point.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let (p, t): (Vec<char>, Vec<char>) = (
        pattern.to_lowercase().chars().collect(),
        text.to_lowercase().chars().collect(),
    );
    let (mut i, mut j, mut star) = (0, 0, None);
    while j < t.len() {
        if i < p.len() && (p[i] == '?' || (p[i] == t[j] && p[i] != '*')) {
            i += 1;
            j += 1;
        } else if i < p.len() && p[i] == '*' {
            star = Some((i, j));
            i += 1;
        } else if let Some((si, sj)) = star {
            i = si + 1;
            j = sj + 1;
            star = Some((si, sj + 1));
        } else {
            return false;
        }
    }
    p[i..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_reproducible_and_reads_back() {
        let header = ImageHeader::new(Class::Bios, "1.15.2", "PowerEdge R6*");
        let (a, b) = (build(&header, 10_000), build(&header, 10_000));
        assert_eq!(a.bytes, b.bytes);
        assert_eq!(a.bytes.len(), 10_000);
        assert_eq!(a.sha256.len(), 64);
        assert_eq!(ImageHeader::parse(&a.bytes).unwrap(), header);
        assert_ne!(
            build(&ImageHeader::new(Class::Bios, "1.15.3", "*"), 10_000).sha256,
            a.sha256
        );
    }

    #[test]
    fn what_is_not_an_image_is_refused() {
        assert!(matches!(ImageHeader::parse(b"<html>"), Err(ImageError::Magic)));
        assert!(matches!(
            ImageHeader::parse(b"KIBANFW1 {"),
            Err(ImageError::Unterminated)
        ));
        assert!(matches!(
            ImageHeader::parse(b"KIBANFW1 {}\n"),
            Err(ImageError::Header(_))
        ));
        let unknown = b"KIBANFW1 {\"class\":\"BIOS\",\"version\":\"1\",\"models\":[],\"x\":1}\n";
        assert!(matches!(ImageHeader::parse(unknown), Err(ImageError::Header(_))));
    }

    #[test]
    fn globs() {
        for (p, t, fits) in [
            ("*", "", true),
            ("r650-*", "R650-01", true),
            ("*dge r6?0", "PowerEdge R650", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("", "x", false),
            ("**", "x*", true),
        ] {
            assert_eq!(glob(p, t), fits, "{p} on {t}");
        }
    }
}
