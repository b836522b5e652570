use super::*;

const CPU_STAT: &str = include_str!("golden/cpu.stat");
const MEMORY_STAT: &str = include_str!("golden/memory.stat");
const IO_STAT: &str = include_str!("golden/io.stat");

#[test]
fn processor_time_is_in_nanoseconds() {
    let expected = Cpu {
        usage_ns: 1_734_221_000,
        user_ns: 1_500_004_000,
        system_ns: 234_217_000,
        periods: 120,
        throttled_periods: 37,
        throttled_ns: 2_000_150_000,
    };
    assert_eq!(cpu(CPU_STAT), expected);
    assert_eq!(cpu(""), Cpu::default());
}

#[test]
fn memory_has_names_of_both_versions() {
    let limits = memory::Limits { memory: 64 << 20, swap: memory::UNLIMITED };
    let details = memory::with_v1_names(MEMORY_STAT, 8192, &limits);
    let value = |name: &str| {
        let mut found = details.iter().filter(|(known, _)| known == name);
        let value = found.next().unwrap_or_else(|| panic!("no {name}")).1;
        assert!(found.next().is_none(), "{name} twice");
        value
    };
    for (names, number) in [
        (["anon", "rss", "total_rss"], 17_518_592),
        (["file", "cache", "total_cache"], 8_196_096),
        (["file_mapped", "mapped_file", "total_mapped_file"], 1_011_712),
        (["file_dirty", "dirty", "total_dirty"], 4096),
        (["file_writeback", "writeback", "total_writeback"], 12_288),
        (["anon_thp", "rss_huge", "total_rss_huge"], 2_097_152),
        (["inactive_file", "total_inactive_file", "inactive_file"], 5_242_880),
        (["active_file", "total_active_file", "active_file"], 2_953_216),
        (["pgfault", "total_pgfault", "pgfault"], 4711),
        (["pgmajfault", "total_pgmajfault", "pgmajfault"], 12),
        (["swap", "total_swap", "swap"], 8192),
    ] {
        assert_eq!(names.map(value), [number; 3], "{names:?}");
    }
    assert_eq!(value("hierarchical_memory_limit"), 64 << 20);
    assert_eq!(value("hierarchical_memsw_limit"), u64::MAX);
    assert_eq!(value("kernel_stack"), 49_152);
}

#[test]
fn disks_have_bytes_and_operations() {
    let disk = |major, minor| Disk { major, minor, ..Disk::default() };
    let expected = [
        Disk {
            read_bytes: 12_582_912,
            written_bytes: 4096,
            discarded_bytes: 8192,
            reads: 97,
            writes: 1,
            discards: 2,
            ..disk(254, 0)
        },
        Disk { read_bytes: 512, reads: 1, ..disk(259, 1) },
    ];
    assert_eq!(disks::parse(IO_STAT), expected);
    assert_eq!(disks::parse("\nnonsense\n1:x rbytes=1\n"), []);
}

#[test]
fn a_page_size_is_in_the_name_of_its_file() {
    assert_eq!(page_size("hugetlb.2MB.current"), Some("2MB"));
    for other in ["hugetlb.2MB.rsvd.current", "hugetlb.2MB.max", "pids.current"] {
        assert_eq!(page_size(other), None, "{other}");
    }
    assert_eq!((single("max\n"), single("33\n")), (None, Some(33)));
}
