//! Registers of a device, as a driver reads and writes them.

/// The registers behind one BAR. All are little-endian on the bus; values here are in the host's order. An access outside
/// of the BAR, or to a device that is gone, reads as all ones and writes nothing: what a missing device answers.
///
/// Accesses are neither merged nor left out nor moved past each other by the compiler. Ordinary memory is another matter:
/// a driver puts a fence between a descriptor and the doorbell that announces it (N2).
pub trait Registers: Send + Sync {
    /// Bytes that the BAR has.
    fn size(&self) -> usize;
    /// One byte.
    fn read8(&self, offset: usize) -> u8;
    /// Two bytes, at a multiple of 2.
    fn read16(&self, offset: usize) -> u16;
    /// Four bytes, at a multiple of 4.
    fn read32(&self, offset: usize) -> u32;
    /// One byte.
    fn write8(&self, offset: usize, value: u8);
    /// Two bytes, at a multiple of 2.
    fn write16(&self, offset: usize, value: u16);
    /// Four bytes, at a multiple of 4.
    fn write32(&self, offset: usize, value: u32);

    /// Whether an access has found the device missing (its BAR's pages were taken away under us). Others are noticed by
    /// what they read: all ones where that cannot be.
    fn is_gone(&self) -> bool {
        false
    }
}
