//! Memory for what a ring needs beside the guest's own: as large as the front end says, so not having it is no panic.

use std::collections::TryReserveError;

/// `len` times `value`, or an error if there is no memory for that.
pub(super) fn filled<T: Clone>(value: T, len: usize) -> Result<Box<[T]>, TryReserveError> {
    let mut room = Vec::new();
    room.try_reserve_exact(len)?;
    room.resize(len, value);
    Ok(room.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_to_be_had_is_an_error() {
        assert_eq!(filled(7u64, 3).expect("24 bytes")[..], [7, 7, 7]);
        assert!(filled(0u8, 0).expect("nothing").is_empty());
        // More than the address space, and more than a size can say.
        assert!(filled(0u64, 1 << 50).is_err());
        assert!(filled(0u64, usize::MAX).is_err());
    }
}
