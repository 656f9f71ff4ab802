//! Sealed memory files: how settings travel, so that nobody can change them once they were checked.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Largest content that is read, in bytes: far above any config, far below what would hurt.
pub const MAX: usize = 64 << 20;

fn seals() -> SealFlag {
    SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE
}

/// A memory file with this content that nobody can change any more. `name` shows in `/proc/PID/fd`.
///
/// # Errors
/// No memory, no descriptors, or more than [`MAX`] bytes.
pub fn write_sealed(name: &str, content: &[u8]) -> io::Result<OwnedFd> {
    if content.len() > MAX {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("{} bytes", content.len())));
    }
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = File::from(fd);
    file.write_all(content)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals()))?;
    Ok(file.into())
}

/// The content of a sealed memory file.
///
/// # Errors
/// [`ErrorKind::InvalidData`] when it is none, is not sealed (it could change while it is read), or is
/// larger than [`MAX`].
pub fn read_sealed(fd: OwnedFd) -> io::Result<Vec<u8>> {
    let file = File::from(fd);
    let bad = |why: &str| io::Error::new(ErrorKind::InvalidData, why.to_owned());
    let found = fcntl(&file, FcntlArg::F_GET_SEALS).map_err(|_| bad("not a memory file"))?;
    if !SealFlag::from_bits_retain(found).contains(seals()) {
        return Err(bad("a memory file that is not sealed"));
    }
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    if length > MAX {
        return Err(bad("a memory file that is too large"));
    }
    let mut content = vec![0; length];
    // From the start, whatever others who hold the same open file did to its offset.
    file.read_exact_at(&mut content, 0)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Seek;

    #[test]
    fn what_is_written_is_read_and_cannot_be_changed() {
        let fd = write_sealed("settings", b"content").unwrap();
        let mut copy = File::from(fd.try_clone().unwrap());
        assert!(copy.write_all(b"x").is_err());
        assert!(copy.set_len(0).is_err());
        copy.seek(std::io::SeekFrom::Start(3)).unwrap();
        assert_eq!(read_sealed(fd).unwrap(), b"content");
    }

    #[test]
    fn unsealed_and_ordinary_files_are_refused() {
        let open = memfd_create("open", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        assert_eq!(read_sealed(open).unwrap_err().kind(), ErrorKind::InvalidData);
        let file = tempfile::tempfile().unwrap();
        assert_eq!(read_sealed(file.into()).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
