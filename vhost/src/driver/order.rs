//! Which free slot a driver posts next.

use core::fmt;
use core::str::FromStr;

/// In which order free slots are posted again. A slot is a buffer and its descriptor, so this decides whose cache lines the
/// device finds in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// As they came back: slots go round in the same order lap after lap, and what stands in rings and headers mostly stays.
    #[default]
    Same,
    /// The one that came back last first, as Linux' driver does (its list of free descriptors is a stack).
    Lifo,
    /// Any one of the free ones.
    Shuffled,
}

impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Same, Self::Lifo, Self::Shuffled]
            .into_iter()
            .find(|order| order.name() == text)
            .ok_or_else(|| format!("order {text:?}: there are same, lifo and shuffled"))
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Order {
    fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Lifo => "lifo",
            Self::Shuffled => "shuffled",
        }
    }
}

/// The free slots of a driver that does not post them as they came back.
#[derive(Debug)]
pub(super) struct Pool {
    free: Box<[u16]>,
    len: usize,
    /// Of a generator of random numbers (xorshift); 0 for a stack.
    random: u32,
}

impl Pool {
    /// An empty pool for up to `slots`, if slots do not just go round.
    pub(super) fn new(order: Order, slots: u16) -> Option<Self> {
        let random = match order {
            Order::Same => return None,
            Order::Lifo => 0,
            Order::Shuffled => 0x9e37_79b9,
        };
        Some(Self { free: vec![0; slots.into()].into(), len: 0, random })
    }

    #[inline(always)]
    pub(super) fn put(&mut self, slot: u16) {
        self.free[self.len] = slot;
        self.len += 1;
    }

    /// The next one to be posted; there must be one.
    #[inline(always)]
    pub(super) fn take(&mut self) -> u16 {
        if self.random != 0 {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 17;
            self.random ^= self.random << 5;
            self.free.swap(self.random as usize % self.len, self.len - 1);
        }
        self.len -= 1;
        self.free[self.len]
    }
}
