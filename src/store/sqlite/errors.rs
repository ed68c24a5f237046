//! SQLite's errors in the terms of the contract.

use std::sync::Arc;

use rusqlite::ErrorCode;

use crate::store::StoreError;

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full { source: Arc::new(error) },
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Corrupt { detail: error.to_string() }
            }
            Some(_) => Self::Io { source: Arc::new(error) },
            // A column of an unexpected type: nothing that this program writes.
            None => Self::Corrupt { detail: error.to_string() },
        }
    }
}

/// An error of the file system.
pub(in crate::store) fn io(error: std::io::Error) -> StoreError {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            StoreError::Full { source: Arc::new(error) }
        }
        _ => StoreError::Io { source: Arc::new(error) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi;

    #[test]
    fn result_codes_become_the_variants_that_callers_act_on() {
        let map = |code| StoreError::from(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        assert!(matches!(map(ffi::SQLITE_FULL), StoreError::Full { .. }));
        assert!(matches!(map(ffi::SQLITE_IOERR_FSYNC), StoreError::Io { .. }));
        assert!(matches!(map(ffi::SQLITE_READONLY), StoreError::Io { .. }));
        assert!(matches!(map(ffi::SQLITE_CORRUPT_INDEX), StoreError::Corrupt { .. }));
        assert!(matches!(map(ffi::SQLITE_NOTADB), StoreError::Corrupt { .. }));
        assert!(matches!(io(std::io::ErrorKind::StorageFull.into()), StoreError::Full { .. }));
        assert!(matches!(io(std::io::ErrorKind::PermissionDenied.into()), StoreError::Io { .. }));
    }
}
