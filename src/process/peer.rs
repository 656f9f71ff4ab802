//! Who is at the other end of a unix socket: the part of it that the standard library does not read.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `NGROUPS_MAX` of Linux (linux/limits.h): no peer has more groups.
const MOST: usize = 65_536;

/// The peer's supplementary groups at the moment it connected (`SO_PEERGROUPS`, unix(7), Linux 4.13):
/// the kernel's own list, no name service is asked.
///
/// # Errors
/// What getsockopt(2) says, for example that this is not a connected unix socket.
pub fn groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut list: Vec<libc::gid_t> = vec![0; 32];
    loop {
        let room = list.len() * size_of::<libc::gid_t>();
        let mut bytes = libc::socklen_t::try_from(room).map_err(io::Error::other)?;
        // SAFETY: `list` is writable for `bytes` bytes and lives until the call returns; `bytes` is a
        // valid in-out length; the descriptor is open because it is borrowed.
        let rc = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                list.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        if rc == 0 {
            list.truncate(bytes as usize / size_of::<libc::gid_t>());
            return Ok(list);
        }
        let error = io::Error::last_os_error();
        // ERANGE: the list is longer, and `bytes` now says how long.
        let wanted = bytes as usize / size_of::<libc::gid_t>();
        if error.raw_os_error() != Some(libc::ERANGE) || wanted <= list.len() || wanted > MOST {
            return Err(error);
        }
        list.resize(wanted, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_peer_has_the_groups_of_its_process() {
        let (here, _there) = UnixStream::pair().unwrap();
        let mut seen = groups(here.as_fd()).unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("Groups:")).unwrap();
        let mut own: Vec<u32> = line.split_whitespace().map(|g| g.parse().unwrap()).collect();
        seen.sort_unstable();
        own.sort_unstable();
        assert_eq!(seen, own);
    }

    #[test]
    fn a_file_has_no_peer() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(groups(file.as_fd()).unwrap_err().raw_os_error(), Some(libc::ENOTSOCK));
    }
}
