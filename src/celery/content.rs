//! Serializers and compressions: what is taken, what is refused with which words, and how large a body may become.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::fault::Wrong;

/// What Celery calls gzip; it is a zlib stream.
pub const GZIP: &str = "application/x-gzip";

/// The content type of JSON.
pub const JSON: &str = "application/json";

/// How much is decompressed at a time, in bytes.
const STEP: usize = 16 << 10;

/// The text of a JSON body.
///
/// # Errors
/// It is of another serializer (pickle is named as such), in an encoding that is not read, or no UTF-8. A body that
/// names no type is JSON: some producers leave it out.
pub fn text<'a>(
    bytes: &'a [u8],
    content_type: Option<&str>,
    encoding: Option<&str>,
) -> Result<&'a str, Wrong> {
    let sent = content_type.unwrap_or(JSON);
    let bare = sent.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match bare.as_str() {
        "application/json" => {}
        "application/x-python-serialize" | "application/x-python-pickle" => {
            return Err(Wrong::Pickle { content_type: shown(sent) });
        }
        _ => return Err(Wrong::ContentType { content_type: shown(sent) }),
    }
    match encoding.unwrap_or("utf-8").to_ascii_lowercase().as_str() {
        // kombu says binary of bytes that it does not decode itself; JSON is UTF-8 then.
        "" | "utf-8" | "utf8" | "utf_8" | "us-ascii" | "ascii" | "binary" => {}
        _ => return Err(Wrong::ContentEncoding { encoding: shown(encoding.unwrap_or_default()) }),
    }
    std::str::from_utf8(bytes).map_err(|_| Wrong::NotText { part: "body" })
}

/// Words of a peer, short enough for a message.
#[must_use]
pub fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// The bytes that were compressed.
///
/// # Errors
/// Another compression than zlib, broken data, or more than `limit` bytes (of which no more than a step is made).
pub fn decompress(compression: &str, bytes: &[u8], limit: usize) -> Result<Vec<u8>, Wrong> {
    match compression.to_ascii_lowercase().as_str() {
        GZIP | "gzip" | "zlib" => inflate(bytes, limit),
        _ => Err(Wrong::Compression { compression: shown(compression) }),
    }
}

fn inflate(bytes: &[u8], limit: usize) -> Result<Vec<u8>, Wrong> {
    let broken = Wrong::Broken { compression: "gzip (zlib)" };
    let mut stream = Decompress::new(true);
    let mut out = Vec::new();
    loop {
        let read = usize::try_from(stream.total_in()).unwrap_or(usize::MAX);
        let rest = bytes.get(read..).unwrap_or_default();
        out.reserve(STEP);
        let made = out.len();
        let status =
            stream.decompress_vec(rest, &mut out, FlushDecompress::None).map_err(|_| broken.clone())?;
        if out.len() > limit {
            return Err(Wrong::TooLarge { limit });
        }
        match status {
            Status::StreamEnd => return Ok(out),
            // Nothing more comes of it: it was cut short.
            _ if out.len() == made && stream.total_in() == read as u64 => return Err(broken),
            _ => {}
        }
    }
}

/// The bytes as what Celery calls gzip.
#[must_use]
pub fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut stream = Compress::new(Compression::default(), true);
    let mut out = Vec::new();
    loop {
        let read = usize::try_from(stream.total_in()).unwrap_or(usize::MAX);
        let rest = bytes.get(read..).unwrap_or_default();
        out.reserve(STEP);
        match stream.compress_vec(rest, &mut out, FlushCompress::Finish) {
            Ok(Status::StreamEnd) | Err(_) => return out,
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zlib_goes_both_ways() {
        for size in [0, 1, 1000, 300_000] {
            let bytes: Vec<u8> = (0..size).map(|i: u32| (i % 251) as u8 ^ (i >> 9) as u8).collect();
            let packed = deflate(&bytes);
            assert_eq!(packed.first(), Some(&0x78));
            assert_eq!(decompress(GZIP, &packed, 1 << 20).unwrap(), bytes);
            for cut in [packed.len() - 1, packed.len() / 2, 0] {
                let cut = decompress(GZIP, &packed[..cut], 1 << 20);
                assert!(matches!(cut, Err(Wrong::Broken { .. })), "{cut:?}");
            }
        }
        assert!(matches!(decompress(GZIP, b"no zlib", 100), Err(Wrong::Broken { .. })));
    }

    #[test]
    fn a_bomb_is_refused_and_not_unpacked() {
        let packed = deflate(&vec![0; 50 << 20]);
        assert!(packed.len() < 100_000);
        assert_eq!(decompress(GZIP, &packed, 1 << 20), Err(Wrong::TooLarge { limit: 1 << 20 }));
    }

    #[test]
    fn what_is_refused_is_named() {
        for name in ["application/x-bz2", "application/x-lzma", "application/x-brotli", "application/zstd"] {
            let said = decompress(name, b"", 10).unwrap_err().to_string();
            assert!(said.contains(name), "{said}");
        }
        let said = text(b"\x80\x04", Some("application/x-python-serialize"), Some("binary")).unwrap_err();
        assert!(matches!(&said, Wrong::Pickle { .. }) && said.to_string().contains("task_serializer"));
        for other in ["application/x-yaml", "application/x-msgpack", "text/plain", ""] {
            assert!(matches!(text(b"{}", Some(other), None), Err(Wrong::ContentType { .. })), "{other}");
        }
        assert!(matches!(text(b"{}", Some(JSON), Some("koi8-r")), Err(Wrong::ContentEncoding { .. })));
        assert!(matches!(text(b"\xff", None, None), Err(Wrong::NotText { .. })));
        assert_eq!(text(b"{}", Some("application/json; charset=utf-8"), Some("UTF-8")), Ok("{}"));
    }
}
