//! The tail of a port specification: what stands behind `kind:`.

use crate::PortError;

/// Most queues that a port of this module makes.
pub(crate) const MAX_QUEUES: usize = 16;

/// Its parts between commas, as `(key, value)`; the value is empty without a `=`.
pub(crate) fn parts(rest: &str) -> impl Iterator<Item = (&str, &str)> {
    rest.split(',').filter(|p| !p.is_empty()).map(|p| p.split_once('=').unwrap_or((p, "")))
}

/// For kinds without options.
pub(crate) fn nothing(kind: &str, rest: &str) -> Result<(), PortError> {
    if rest.is_empty() {
        Ok(())
    } else {
        Err(PortError::Spec(format!("{kind} takes nothing behind its name, not \"{rest}\"")))
    }
}

/// `IFACE[,queues=N]`: an interface's name and a number of queues (1 unless given).
pub(crate) fn interface_and_queues(kind: &str, rest: &str) -> Result<(String, usize), PortError> {
    let (name, options) = rest.split_once(',').unwrap_or((rest, ""));
    check_interface(kind, name)?;
    let mut queues = 1;
    for (key, value) in parts(options) {
        if key != "queues" {
            return Err(PortError::Spec(format!(
                "{kind} has no option \"{key}\": write {kind}:{name}[,queues=N]"
            )));
        }
        queues = value.parse().unwrap_or(0);
    }
    check_queues(kind, queues)?;
    Ok((name.to_owned(), queues))
}

/// A name that the kernel takes for an interface.
pub(crate) fn check_interface(kind: &str, name: &str) -> Result<(), PortError> {
    let wrong = |why: &str| {
        Err(PortError::Spec(format!("{kind}: \"{name}\" is no interface name ({why}): write {kind}:IFACE")))
    };
    if name.is_empty() {
        return wrong("it is empty");
    }
    if name.len() >= libc::IFNAMSIZ {
        return wrong("it has more than 15 bytes");
    }
    if name == "."
        || name == ".."
        || name.bytes().any(|b| b == b'/' || b == b':' || b == b'%' || b == 0 || b.is_ascii_whitespace())
    {
        return wrong("no blanks, no slash, no colon, no percent sign");
    }
    Ok(())
}

/// A number of queues within 1 to [`MAX_QUEUES`].
pub(crate) fn check_queues(kind: &str, queues: usize) -> Result<(), PortError> {
    if (1..=MAX_QUEUES).contains(&queues) {
        return Ok(());
    }
    Err(PortError::Spec(format!("{kind}: queues must be a number, 1 to {MAX_QUEUES}")))
}
