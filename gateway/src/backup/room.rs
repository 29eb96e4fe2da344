//! The free space of a file system.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Returns the bytes that we may still write there; `None` when the system does not report them.
#[allow(unsafe_code, reason = "statvfs, which std does not have")]
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let name = CString::new(folder.as_os_str().as_bytes()).ok()?;
    // SAFETY: the name ends with a zero, the struct is plain numbers, and the call fills it.
    let (rc, found) = unsafe {
        let mut found: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(name.as_ptr(), &raw mut found), found)
    };
    #[allow(clippy::unnecessary_cast, reason = "the types differ among the systems that we build for")]
    let free = (found.f_bavail as u64).checked_mul(found.f_frsize as u64)?;
    (rc == 0).then_some(free)
}
