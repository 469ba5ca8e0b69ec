//! What a device's process takes of the machine's memory, guests' RAM apart.

use std::iter::Sum;

/// How the RAM of our own guests is named in a process's mappings.
const GUEST_RAM: &str = "/memfd:polder-driver-ram";

/// Memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident in ordinary pages: the program, its heap, its stacks.
    pub resident: u64,
    /// In hugepages.
    pub huge: u64,
    /// Of guests' RAM, mapped to reach their rings and frames: it is the guests' own.
    pub guests: u64,
}

impl Memory {
    /// All but the guests'.
    #[must_use]
    pub fn own(self) -> u64 {
        self.resident + self.huge
    }
}

impl Sum for Memory {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self {
            resident: a.resident + b.resident,
            huge: a.huge + b.huge,
            guests: a.guests + b.guests,
        })
    }
}

/// Of process `id`, by `/proc/ID/smaps`.
pub(super) fn of(id: u32) -> Result<Memory, String> {
    let file = format!("/proc/{id}/smaps");
    std::fs::read_to_string(&file).map(|text| read(&text)).map_err(|e| format!("{file}: {e}"))
}

/// Not by `Rss`, which leaves hugepages out: by the fields that tell clean from dirty, of which each page is in one.
fn read(smaps: &str) -> Memory {
    let (mut memory, mut is_guests) = (Memory::default(), false);
    for line in smaps.lines() {
        let mut words = line.split_ascii_whitespace();
        let field = words.next().unwrap_or_default();
        let into = match field {
            "Shared_Clean:" | "Shared_Dirty:" | "Private_Clean:" | "Private_Dirty:" => &mut memory.resident,
            "Shared_Hugetlb:" | "Private_Hugetlb:" => &mut memory.huge,
            // A mapping's head: its range, as in 7f00-7f01.
            _ if !field.ends_with(':') => {
                is_guests = line.contains(GUEST_RAM);
                continue;
            }
            _ => continue,
        };
        let kib: u64 = words.next().and_then(|n| n.parse().ok()).unwrap_or(0);
        *(if is_guests { &mut memory.guests } else { into }) += kib << 10;
    }
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_ram_is_told_apart() {
        let smaps = "\
55aa-55ab r-xp 00000000 fe:00 123   /usr/bin/device
Size:                 64 kB
Rss:                  64 kB
Shared_Clean:         16 kB
Shared_Dirty:          0 kB
Private_Clean:        40 kB
Private_Dirty:         8 kB
Shared_Hugetlb:        0 kB
VmFlags: rd ex mr mw me
7f00-7f20 rw-s 00000000 00:0f 7    /memfd:polder-driver-ram (deleted)
Rss:                   0 kB
Shared_Hugetlb:     6144 kB
7f40-7f60 rw-s 00000000 00:0f 8    /dev/hugepages/rtemap_0
Shared_Hugetlb:        0 kB
Private_Hugetlb:    2048 kB
";
        let memory = read(smaps);
        assert_eq!(memory, Memory { resident: 64 << 10, huge: 2 << 20, guests: 6 << 20 });
        assert_eq!(memory.own(), (2 << 20) + (64 << 10));
    }

    #[test]
    fn this_process_takes_some() {
        assert!(of(std::process::id()).unwrap().own() > 0);
        assert!(of(u32::MAX).is_err());
    }
}
