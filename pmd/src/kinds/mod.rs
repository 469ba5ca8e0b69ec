//! From a port's specification to the port, for every kind that this crate has.

mod vfio;

pub use vfio::{CardDriver, VfioConfig};

use crate::{Port, PortError, vdev};

/// The kinds, each with its specification's form.
pub fn kinds() -> impl Iterator<Item = (&'static str, &'static str)> {
    [("vfio", vfio::FORM)].into_iter().chain(vdev::KINDS.iter().copied())
}

/// Makes the port that a specification names: `kind` is what stands before its first colon, `rest` what stands behind.
///
/// # Errors
/// [`PortError`]: what is wrong and what would be right, or what the system or the device refuses.
pub fn from_spec(kind: &str, rest: &str) -> Result<Box<dyn Port>, PortError> {
    match kind {
        "vfio" => vfio::port(&rest.parse()?),
        _ if kinds().any(|(known, _)| known == kind) => vdev::from_spec(kind, rest),
        _ => {
            let forms: Vec<_> = kinds().map(|(_, form)| form).collect();
            Err(PortError::Spec(format!("no port kind \"{kind}\" here; there are: {}", forms.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_are_made_or_named() {
        assert_eq!(from_spec("null", "").unwrap().kind(), "null");
        let refused = |kind, rest| from_spec(kind, rest).err().map(|e| e.to_string()).unwrap_or_default();
        let unknown = refused("floppy", "x");
        assert!(unknown.contains("vfio:BDF") && unknown.contains("tap:IFACE"), "{unknown}");
        assert!(refused("vfio", "").contains("vfio:BDF"));
        assert!(refused("vfio", "ffff:fe:1f.7").contains("there is no PCI function"));
    }
}
