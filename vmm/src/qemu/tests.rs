//! The argument lists of whole machines, and the guest's names for their disks.

use super::*;

fn wiring(channel: Channel) -> Wiring {
    Wiring {
        accel: Accel::Tcg,
        needs_rng: false,
        sandbox: true,
        clocks: Clocks::Measured,
        qmp: "/run/vm/qmp.sock".into(),
        monitor: None,
        channel,
        rootfs_bytes: 0,
        verity: None,
        disks: Vec::new(),
        privileged: true,
        share_sockets: "/run/vm".into(),
    }
}

fn serial() -> Channel {
    Channel::Serial { socket: "/run/vm/serial.sock".into(), listens: false }
}

fn vhost_user() -> Channel {
    Channel::VhostUserVsock { socket: "/run/vm/vhost.sock".into(), ready_port: 1028 }
}

fn initrd() -> Machine {
    Machine::new("/g/vmlinux", Boot::Initrd("/g/initrd.img".into()))
}

fn rootfs() -> Machine {
    Machine::new("/g/vmlinux", Boot::Rootfs("/g/rootfs.erofs".into()))
}

fn line(machine: &Machine, wiring: &Wiring) -> String {
    let args = arguments(machine, wiring);
    args.iter().map(|arg| arg.to_str().unwrap()).collect::<Vec<_>>().join(" ")
}

fn file(bytes: u64) -> DiskFacts {
    DiskFacts { block_device: false, bytes }
}

fn disk(path: &str, read_only: bool) -> Disk {
    Disk { path: path.into(), read_only }
}

#[test]
fn a_microvm_with_a_serial_port() {
    assert_eq!(
        line(&initrd(), &wiring(serial())),
        "-nodefaults -no-user-config -no-reboot -display none \
         -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
         -machine microvm,rtc=on,isa-serial=on,x-option-roms=off,acpi=off \
         -accel tcg -cpu max,erms=off,fsrm=off -smp 1 -m 64M -kernel /g/vmlinux -initrd /g/initrd.img \
         -append console=ttyS0 quiet reboot=t noreplace-smp acpi=off no_timer_check tsc=reliable \
         -chardev stdio,id=console,signal=off -serial chardev:console \
         -chardev socket,id=qmp,server=off,path=/run/vm/qmp.sock -mon chardev=qmp,mode=control \
         -chardev socket,id=agent,server=off,path=/run/vm/serial.sock \
         -device virtio-serial-device,id=serial,max_ports=2 \
         -device virtserialport,bus=serial.0,chardev=agent,name=hyperstart.agent"
    );
}

#[test]
fn a_vhost_user_daemon_maps_the_guests_memory() {
    let line = line(&initrd(), &wiring(vhost_user()));
    assert!(line.contains(",memory-backend=memory "), "{line}");
    assert!(line.contains("-object memory-backend-memfd,id=memory,share=on,size=64M"), "{line}");
    assert!(line.contains("-device vhost-user-vsock-device,chardev=vsock"), "{line}");
    assert!(line.contains(" hyperstart.ready=1028 "), "{line}");
}

#[test]
fn the_kernels_vsock_has_a_context_id() {
    let line = line(&rootfs(), &wiring(Channel::VhostVsock { cid: 77, ready_port: 4000 }));
    assert!(line.contains("-device vhost-vsock-pci,addr=0x3,guest-cid=77"), "{line}");
    assert!(line.contains("hyperstart.ready=4000"), "{line}");
    assert!(!line.contains("memory-backend-memfd"), "{line}");
}

#[test]
fn a_rootfs_is_persistent_memory_in_the_first_slot() {
    let wiring = Wiring { rootfs_bytes: 4 << 20, ..wiring(serial()) };
    let line = line(&rootfs(), &wiring);
    assert!(line.contains("-bios qboot.rom -machine q35,"), "{line}");
    assert!(line.contains("-m 64M,maxmem=2112M"), "{line}");
    assert_eq!(line.matches("acpi=off").count(), 2, "the board's and the kernel's: {line}");
    assert!(line.contains(" memmap=2G$4G irqfixup "), "{line}");
    assert!(
        line.contains(
            "-object memory-backend-file,id=root-file,share=on,readonly=on,size=4194304,mem-path=/g/rootfs.erofs \
             -device virtio-pmem-pci,addr=0x2,id=root,memdev=root-file"
        ),
        "{line}"
    );
    assert!(
        line.contains("root=/dev/pmem0 rootflags=dax=always rootfstype=erofs ro init=/init"),
        "{line}"
    );
    assert!(!line.contains("-initrd"), "{line}");
}

/// RAM above 4 GiB moves persistent memory to where only ACPI tells the guest.
#[test]
fn a_large_guest_with_a_rootfs_has_acpi() {
    let wiring = Wiring { rootfs_bytes: 4 << 20, ..wiring(serial()) };
    let large = line(&Machine { memory_mib: 4096, ..rootfs() }, &wiring);
    assert!(!large.contains("acpi=off") && !large.contains("memmap="), "{large}");
    let mut plain = Machine { memory_mib: 4096, ..initrd() };
    plain.kind = MachineKind::Q35;
    assert!(line(&plain, &wiring).contains("acpi=off"), "nothing is mapped there");
}

#[test]
fn an_nvdimm_takes_a_memory_slot() {
    let machine = Machine { pmem: PmemKind::Nvdimm, ..rootfs() };
    let line = line(&machine, &Wiring { rootfs_bytes: 2 << 20, ..wiring(serial()) });
    assert!(line.contains("nvdimm=on") && !line.contains("acpi=off"), "{line}");
    assert!(line.contains("-m 64M,slots=1,maxmem=2112M"), "{line}");
    assert!(line.contains("-device nvdimm,unarmed=on,id=root,memdev=root-file"), "{line}");
}

#[test]
fn disks_of_a_microvm_are_virtio_mmio() {
    let machine = Machine { disks: vec![disk("/a", true), disk("/b,c", false)], ..initrd() };
    let wiring = Wiring { disks: vec![file(2 << 20), file(512)], ..wiring(serial()) };
    let line = line(&machine, &wiring);
    assert!(
        line.contains(
            "-blockdev driver=raw,node-name=disk0-file,read-only=on,file.driver=file,file.read-only=on,\
             file.filename=/a -device virtio-blk-device,id=disk0,drive=disk0-file"
        ),
        "{line}"
    );
    assert!(line.contains("file.filename=/b,,c"), "{line}");
    let devices = disk_devices(&machine, &wiring);
    let found: Vec<_> =
        devices.iter().map(|d| (d.driver, d.source.as_str(), d.path.as_str())).collect();
    assert_eq!(found, [("mmioblk", "/dev/vda", "/dev/vda"), ("mmioblk", "/dev/vdb", "/dev/vdb")]);
}

/// What the guest is told must be where QEMU was told to put it.
#[test]
fn disks_beside_a_rootfs_are_mapped_where_they_can_be() {
    let disks = vec![
        disk("/whole", true),
        disk("/odd", true),
        disk("/writable", false),
        disk("/more", true),
    ];
    let machine = Machine { disks, ..rootfs() };
    let disks = vec![file(2 << 20), file(4097), file(2 << 20), file(4 << 20)];
    let wiring = Wiring { rootfs_bytes: 2 << 20, disks, ..wiring(serial()) };
    let devices = disk_devices(&machine, &wiring);
    let found: Vec<_> =
        devices.iter().map(|d| (d.driver, d.source.as_str(), d.path.as_str())).collect();
    assert_eq!(
        found,
        [
            ("virtio-pmem", "/dev/pmem1", "/dev/pmem1"),
            ("blk", "04", "/dev/vda"),
            ("blk", "05", "/dev/vdb"),
            ("virtio-pmem", "/dev/pmem2", "/dev/pmem2"),
        ]
    );
    let line = line(&machine, &wiring);
    assert!(line.contains("virtio-blk-pci,addr=0x4,id=disk1"), "{line}");
    assert!(line.contains("virtio-blk-pci,addr=0x5,id=disk2"), "{line}");
    assert!(line.contains("virtio-pmem-pci,addr=0x6,id=disk3"), "{line}");
}

/// Disks are mapped in their order, as long as what the guest's kernel notes of their pages leaves it its memory.
#[test]
fn disks_too_large_for_the_guests_memory_are_blocks() {
    let disks = vec![disk("/a", true), disk("/b", true), disk("/c", true)];
    let machine = Machine { disks, memory_mib: 64, ..rootfs() };
    let disks = vec![file(500 << 20), file(14 << 20), file(12 << 20)];
    let wiring = Wiring { rootfs_bytes: 2 << 20, disks, ..wiring(serial()) };
    let drivers: Vec<_> = disk_devices(&machine, &wiring).iter().map(|d| d.driver).collect();
    assert_eq!(drivers, ["virtio-pmem", "blk", "virtio-pmem"]);
    let line = line(&machine, &wiring);
    assert!(line.contains("virtio-blk-pci,addr=0x4,id=disk1"), "{line}");
}

/// One NVDIMM is /dev/pmem0; of several nobody knows which is.
#[test]
fn beside_an_nvdimm_disks_are_blocks() {
    let machine = Machine { pmem: PmemKind::Nvdimm, disks: vec![disk("/whole", true)], ..rootfs() };
    let wiring = Wiring { rootfs_bytes: 2 << 20, disks: vec![file(2 << 20)], ..wiring(serial()) };
    let devices = disk_devices(&machine, &wiring);
    assert_eq!((devices[0].driver, devices[0].source.as_str()), ("blk", "02"));
    let line = line(&machine, &wiring);
    assert!(line.contains("virtio-blk-pci,addr=0x2,id=disk0"), "{line}");
    assert!(line.contains("slots=1,"), "{line}");
}

#[test]
fn a_host_block_device_is_given_as_one() {
    let machine = Machine { disks: vec![disk("/dev/sdb", true)], ..rootfs() };
    let disks = vec![DiskFacts { block_device: true, bytes: 0 }];
    let wiring = Wiring { rootfs_bytes: 2 << 20, disks, ..wiring(serial()) };
    assert!(line(&machine, &wiring).contains("file.driver=host_device"));
    assert_eq!(disk_devices(&machine, &wiring)[0].driver, "blk");
}

#[test]
fn a_kernel_that_is_told_its_frequencies_needs_no_pit() {
    let told = |tsc_khz| Wiring { clocks: Clocks::Told { tsc_khz }, ..wiring(serial()) };
    let line_of = |machine: &Machine, tsc_khz| line(machine, &told(tsc_khz));
    let tcg = line_of(&initrd(), Some(2_600_000));
    assert!(tcg.contains(",pit=off,pic=off,acpi=off "), "{tcg}");
    assert!(tcg.contains(" lapic_timer_khz=1000000 tsc_early_khz=2600000 "), "{tcg}");
    assert!(!line_of(&initrd(), None).contains("tsc_early_khz"));
    let timer = line(&initrd(), &Wiring { clocks: Clocks::TimerTold, ..wiring(serial()) });
    assert!(timer.contains(" lapic_timer_khz=") && !timer.contains("pit=off"), "{timer}");
    let measured = line(&initrd(), &wiring(serial()));
    assert!(!measured.contains("pit=off") && !measured.contains("_khz="), "{measured}");
    assert!(!line_of(&rootfs(), None).contains("pit=off"), "only a microvm");
}

#[test]
fn kvm_passes_the_processor_on_as_it_is() {
    let line = line(&initrd(), &Wiring { accel: Accel::Kvm, ..wiring(serial()) });
    assert!(line.contains("-accel kvm -cpu max -smp"), "{line}");
}

#[test]
fn shares_keep_owners_only_for_root() {
    let share = Share {
        kind: ShareKind::NineP,
        path: "/b,x/rootfs".into(),
        tag: "rootfs".into(),
        read_only: true,
    };
    let machine = Machine { shares: vec![share], ..initrd() };
    let line = line(&machine, &wiring(serial()));
    assert!(
        line.contains(
            "-fsdev local,id=share0-dir,security_model=passthrough,multidevs=remap,readonly=on,path=/b,,x/rootfs \
             -device virtio-9p-device,fsdev=share0-dir,mount_tag=rootfs"
        ),
        "{line}"
    );
    let unprivileged = Wiring { privileged: false, ..wiring(serial()) };
    assert!(super::tests::line(&machine, &unprivileged).contains("security_model=none"));
}

#[test]
fn a_daemons_share_is_a_device_and_memory_that_it_sees() {
    let share = |kind| Share { kind, path: "/b".into(), tag: "data".into(), read_only: false };
    let shares = vec![share(ShareKind::NineP), share(ShareKind::VirtioFs)];
    let served = line(&Machine { shares, ..initrd() }, &wiring(serial()));
    assert!(
        served.contains(
            "-chardev socket,id=share1-fs,server=off,path=/run/vm/fs1.sock \
             -device vhost-user-fs-device,chardev=share1-fs,tag=data"
        ),
        "{served}"
    );
    assert!(served.contains("memory-backend-memfd,id=memory,share=on"), "{served}");
    let shares = vec![share(ShareKind::NineP)];
    assert!(!line(&Machine { shares, ..initrd() }, &wiring(serial())).contains("memfd"));
}

#[test]
fn nics_come_after_disks_and_before_slots() {
    let nics = vec![
        Nic {
            network: Network::User { restricted: true },
            mac: "02:00:00:00:00:01".into(),
            mtu: None,
        },
        Nic {
            network: Network::User { restricted: false },
            mac: "02:00:00:00:00:02".into(),
            mtu: Some(9000),
        },
    ];
    let micro = line(&Machine { nics: nics.clone(), ..initrd() }, &wiring(serial()));
    assert!(
        micro.ends_with(
            "-netdev user,id=nic0-net,restrict=on \
             -device virtio-net-device,id=nic0,netdev=nic0-net,mac=02:00:00:00:00:01 \
             -netdev user,id=nic1-net,restrict=off \
             -device virtio-net-device,id=nic1,netdev=nic1-net,mac=02:00:00:00:00:02,host_mtu=9000"
        ),
        "{micro}"
    );
    let q35 = Machine { kind: MachineKind::Q35, slots: 1, nics, ..initrd() };
    let arguments = line(&q35, &wiring(serial()));
    assert!(arguments.contains("-device virtio-net-pci,addr=0x3,romfile=,id=nic0,"), "{arguments}");
    assert!(
        arguments.ends_with("-device pcie-root-port,addr=0x5,id=slot0,chassis=1"),
        "{arguments}"
    );
    let paths: Vec<_> =
        slots(&q35, &wiring(serial())).into_iter().map(|slot| slot.pci_path).collect();
    assert_eq!(paths, ["05/00"]);
}

#[test]
fn benches_count_instructions() {
    let machine = Machine { icount: true, plugin: Some("libinsn.so".into()), ..initrd() };
    let line = line(&machine, &wiring(serial()));
    assert!(line.contains("-accel tcg,thread=single"), "{line}");
    assert!(line.ends_with("-icount shift=0,sleep=off -plugin libinsn.so"), "{line}");
    assert!(line.contains("tsc_early_khz=1000000"), "{line}");
}

#[test]
fn the_callers_words_come_last() {
    let machine = Machine {
        cmdline: vec!["agent.log=debug".into()],
        qemu_args: vec!["-d".into(), "int".into()],
        ..initrd()
    };
    let wiring = Wiring { needs_rng: true, sandbox: false, ..wiring(vhost_user()) };
    let line = line(&machine, &wiring);
    assert!(line.contains("hyperstart.ready=1028 agent.log=debug -chardev"), "{line}");
    assert!(line.ends_with("-device virtio-rng-device -d int"), "{line}");
    assert!(!line.contains("-sandbox"), "{line}");
}

#[test]
fn slots_come_after_all_else() {
    let q35 = Machine { kind: MachineKind::Q35, slots: 2, ..initrd() };
    let q35 = Machine { disks: vec![disk("/d", true)], ..q35 };
    let wiring = Wiring { disks: vec![file(4096)], needs_rng: true, ..wiring(serial()) };
    let arguments = line(&q35, &wiring);
    assert!(
        arguments.ends_with(
            "-device virtio-rng-pci,addr=0x4 -device pcie-root-port,addr=0x5,id=slot0,chassis=1 \
             -device pcie-root-port,addr=0x6,id=slot1,chassis=2"
        ),
        "{arguments}"
    );
    assert!(!arguments.contains("acpi=off"), "it tells of the disk");
    let paths = |machine: &Machine| -> Vec<String> {
        slots(machine, &wiring).into_iter().map(|slot| slot.pci_path).collect()
    };
    assert_eq!(paths(&q35), ["05/00", "06/00"]);
    let pc = Machine { kind: MachineKind::Pc, ..q35 };
    assert_eq!(paths(&pc), ["05", "06"]);
}
