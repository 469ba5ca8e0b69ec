//! What configuration space says of a virtio device, for those who only look (a driver asks VFIO).

/// PCI Local Bus 3.0 §6.1 and §6.7.
const STATUS: usize = 0x06;
const STATUS_CAPABILITIES: u8 = 1 << 4;
const CAPABILITIES: usize = 0x34;
const VENDOR_SPECIFIC: u8 = 0x09;
/// 192 bytes hold at most so many.
const MOST_CAPABILITIES: usize = 48;
/// virtio 1.3 §4.1.4: `cfg_type` in a virtio capability, and the structures that the modern interface needs.
const CFG_TYPE: usize = 3;
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const DEVICE_CFG: u8 = 4;

/// Whether a virtio device has the modern interface (virtio 1.3 §4.1.4): a transitional one may or may not. `None` if
/// `config` is not whole: root reads 256 bytes of it, others 64.
#[must_use]
pub fn is_modern_virtio(config: &[u8]) -> Option<bool> {
    if config.len() < 256 {
        return None;
    }
    let found: Vec<u8> =
        capabilities(config).filter(|c| c[0] == VENDOR_SPECIFIC).map(|c| c[CFG_TYPE]).collect();
    Some([COMMON_CFG, NOTIFY_CFG, DEVICE_CFG].iter().all(|wanted| found.contains(wanted)))
}

/// Capabilities, each from its first byte on and at least 4 bytes long; bounded, whatever the list says.
fn capabilities(config: &[u8]) -> impl Iterator<Item = &[u8]> {
    let has_list = config[STATUS] & STATUS_CAPABILITIES != 0;
    let mut at = if has_list { usize::from(config[CAPABILITIES] & 0xfc) } else { 0 };
    let next = move || {
        let this = (at >= 0x40).then(|| &config[at..256])?;
        at = usize::from(this[1] & 0xfc);
        Some(this)
    };
    core::iter::from_fn(next).take(MOST_CAPABILITIES)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Configuration space with virtio capabilities of these types.
    fn config(types: &[u8]) -> Vec<u8> {
        let mut config = vec![0; 256];
        config[STATUS] = STATUS_CAPABILITIES;
        config[CAPABILITIES] = 0x40;
        for (n, cfg_type) in types.iter().enumerate() {
            let at = 0x40 + 16 * n;
            let next = if n + 1 < types.len() { at as u8 + 16 } else { 0 };
            config[at..at + 4].copy_from_slice(&[VENDOR_SPECIFIC, next, 16, *cfg_type]);
        }
        config
    }

    #[test]
    fn modern_needs_all_three() {
        assert_eq!(is_modern_virtio(&config(&[1, 3, 4, 2, 5])), Some(true));
        assert_eq!(is_modern_virtio(&config(&[1, 3, 4])), Some(false));
        assert_eq!(is_modern_virtio(&[0; 256]), Some(false));
        assert_eq!(is_modern_virtio(&config(&[1, 2, 4])[..64]), None);
    }

    #[test]
    fn a_list_in_a_circle_ends() {
        let mut circle = config(&[1, 3]);
        circle[0x51] = 0x40;
        assert_eq!(is_modern_virtio(&circle), Some(false));
        circle[0x51] = 0xff;
        assert_eq!(is_modern_virtio(&circle), Some(false));
    }
}
