//! vfio: what a program can do with a PCI function by itself, without a driver for it.
//!
//! ```text
//! sudo polder nic bind 0000:01:10.0
//! cargo run --release -p polder-examples --bin vfio -- 0000:01:10.0
//! ```
//! Opens the function, reads its registers, resets it, maps packet memory for it, has it signal an eventfd or two, and, if
//! told to wait, lets go of it when the system asks. Tests drive it, too: each step prints a line.

use std::error::Error;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use mbuf::{PageSize, Zone, ZoneConfig};
use pmd::bus::pci::Bdf;
use pmd::bus::vfio::{Access, VfioDevice};
use pmd::bus::{DmaArea, PciDevice, Registers};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// Looks at a PCI function that is bound to vfio-pci.
#[derive(Parser)]
struct Args {
    /// Its address: 0000:01:10.0.
    bdf: Bdf,
    /// The token of a VF whose PF is with VFIO, too.
    #[arg(long)]
    token: Option<String>,
    /// Take it without an IOMMU.
    #[arg(long)]
    noiommu: bool,
    /// MiB of packet memory to map, in 2 MiB hugepages.
    #[arg(long, default_value_t = 16)]
    memory: usize,
    /// Switch its memory decoding off and on under the mapped registers. (VFs decode always.)
    #[arg(long)]
    decode_off: bool,
    /// Keep it for so many seconds, or until the system wants it back.
    #[arg(long, default_value_t = 0)]
    wait: u64,
}

fn identify(device: &VfioDevice) {
    let ids = device.ids();
    println!("{} is {:04x}:{:04x} revision {}", device.name(), ids.vendor, ids.device, ids.revision);
    println!("vectors {}", device.vectors());
}

fn read_registers(device: &VfioDevice) {
    for index in 0..6 {
        if let Ok(bar) = device.bar(index) {
            let words: Vec<_> = (0..4).map(|i| format!("{:08x}", bar.read32(4 * i))).collect();
            println!("BAR {index}, {} bytes: {}", bar.size(), words.join(" "));
            assert_eq!(bar.read32(bar.size()), u32::MAX, "nothing is behind it");
        }
    }
}

/// Registers that cannot be reached cost nothing but their values.
fn decode_off(device: &VfioDevice) -> Result<(), Box<dyn Error>> {
    const COMMAND: u16 = 0x04;
    const MEMORY: u16 = 1 << 1;
    let bar = (0..6).find_map(|index| device.bar(index).ok()).ok_or("no memory BAR")?;
    let command = device.read_config16(COMMAND)?;
    device.write_config(COMMAND, &(command & !MEMORY).to_le_bytes())?;
    println!("not decoded: {:08x}, gone: {}", bar.read32(0), bar.is_gone());
    Ok(device.write_config(COMMAND, &command.to_le_bytes())?)
}

fn map_memory(device: &VfioDevice, mib: usize) -> Result<(), Box<dyn Error>> {
    let config =
        ZoneConfig { name: "vfio".into(), bytes: mib << 20, pages: PageSize::Huge2M, numa_node: None };
    let zone = Zone::new(&config)?;
    let mapping = device.map(&zone)?;
    let again = device.map(&zone)?;
    println!("mapped {mib} MiB at {:#x}, offset {:#x}", mapping.iova(zone.base()).0, mapping.offset());
    drop(mapping);
    drop(again);
    drop(device.map(&zone)?); // Not EEXIST: it was undone.
    let area = DmaArea::new(device, 8192)?;
    println!("an area of {} bytes at {:#x}", area.len(), area.iova(0).0);
    Ok(())
}

fn set_interrupts(device: &VfioDevice) -> Result<(), Box<dyn Error>> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    for vectors in [1, device.vectors(), 0] {
        let events: Result<Vec<OwnedFd>, _> = (0..vectors).map(|_| eventfd(0, flags)).collect();
        device.set_interrupts(&events?)?;
    }
    println!("interrupts set and taken back");
    Ok(())
}

/// Whether the system wants it back within the time.
fn wait(device: &VfioDevice, time: Duration) -> Result<bool, Box<dyn Error>> {
    let removal = device.removal().ok_or("this kernel does not tell when it wants a device back")?;
    println!("waiting");
    let timeout = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: 0 };
    Ok(poll(&mut [PollFd::new(&removal, PollFlags::IN)], Some(&timeout))? > 0)
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vfio: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), Box<dyn Error>> {
    let access = Access { token: args.token, noiommu: args.noiommu };
    let device = VfioDevice::open(args.bdf, &access)?;
    identify(&device);
    read_registers(&device);
    device.set_bus_master(true)?;
    println!("express capability at {:x?}", device.capabilities(0x10)?);
    map_memory(&device, args.memory)?;
    set_interrupts(&device)?;
    device.quiesce()?;
    let start = Instant::now();
    device.reset()?;
    println!("reset in {} ms", start.elapsed().as_millis());
    if args.decode_off {
        decode_off(&device)?;
    }
    println!("twice: {}", VfioDevice::open(args.bdf, &access).err().ok_or("opened a second time")?);
    if args.wait > 0 {
        let asked = wait(&device, Duration::from_secs(args.wait))?;
        println!("{}", if asked { "the system wants it back" } else { "nobody wanted it back" });
    }
    drop(device);
    println!("given back");
    Ok(())
}
