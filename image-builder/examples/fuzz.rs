//! A fuzzer of the layer reader and of all behind it, for a stable compiler: `make fuzz`.
//!
//! ```text
//! inputs that gave a new answer ──> mutate (bytes, fields, entries; checksums mended) ──> import into a store
//!            ^                                                                                  │
//!            └───────── the answer: accepted, or the error's words without its numbers ─────────┘
//! ```
//! A coverage-guided fuzzer needs a nightly compiler's instrumentation. Ours takes the answer for the coverage: each
//! check of the reader has words of its own, so an input whose answer was never heard has come to a new place. What is
//! accepted must read back from its image, and flatten. A panic ends it, with the input kept; so does more memory or
//! time than scripts/fuzz allows.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::exit,
    reason = "a program for developers; what fails must be loud"
)]

#[path = "../tests/support/tar.rs"]
#[allow(dead_code, reason = "shared with the tests")]
mod tar;

use image_builder::container::Format;
use image_builder::limits::Limits;
use image_builder::progress::Silent;
use image_builder::store::{Request, Store};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tar::{Head, Tar};

const BLOCK: usize = 512;
/// Longer inputs are cut.
const INPUT_MAX: usize = 64 << 10;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let kept = PathBuf::from(arguments.next().unwrap_or_else(|| "target/fuzz".into()));
    let what = arguments.next().unwrap_or_else(|| "120".into());
    std::fs::create_dir_all(&kept).unwrap();
    let scratch = tempfile::tempdir_in(&kept).unwrap();
    let mut target = Target::new(scratch.path(), kept.join("input"));
    if let Ok(bytes) = std::fs::read(&what) {
        println!("fuzz: {what}: {}", target.answer(&bytes));
        return;
    }
    let seconds = what.parse().expect("SECONDS, or a file to try once");
    let seed = arguments.next().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) << 20 | 1);
    println!("fuzz: layer reader, {seconds} s, seed {seed}");
    let (runs, accepted, answers) = run(&mut target, seed, Duration::from_secs(seconds));
    for answer in &answers {
        println!("fuzz: heard: {answer}");
    }
    println!(
        "fuzz: {runs} inputs, {accepted} accepted, {} different answers, no fault",
        answers.len()
    );
    std::fs::remove_file(kept.join("input")).unwrap();
}

fn run(target: &mut Target, seed: u64, time: Duration) -> (u64, u64, BTreeSet<String>) {
    let mut random = Random(seed);
    let mut corpus = seeds();
    let mut answers = BTreeSet::new();
    let (mut runs, mut accepted) = (0, 0);
    let begun = Instant::now();
    while begun.elapsed() < time {
        let input = match corpus.get(runs as usize) {
            Some(seed) => seed.clone(), // each seed once as it is
            None => mutate(&mut random, &corpus),
        };
        let answer = target.answer(&input);
        runs += 1;
        accepted += u64::from(answer == ACCEPTED);
        let is_new = answers.insert(answer) && runs as usize > corpus.len();
        if is_new && input.get(257..262) == Some(b"ustar") {
            corpus.push(input); // a compressed one is not to be changed further
        }
    }
    (runs, accepted, answers)
}

const ACCEPTED: &str = "accepted";

/// What is fuzzed: an import into a store of its own.
struct Target {
    store: Store,
    input: PathBuf,
}

impl Target {
    fn new(scratch: &Path, input: PathBuf) -> Target {
        Target { store: Store::open(&scratch.join("store")).unwrap(), input }
    }

    /// The input stays on disk while it is tried: whatever ends us, it can be tried again.
    fn answer(&mut self, bytes: &[u8]) -> String {
        std::fs::File::create(&self.input).unwrap().write_all(bytes).unwrap();
        let limits = Limits { content: 1 << 20, entries: 200, ..Limits::default() };
        let names = ["fuzz"];
        let request = Request {
            format: Format::RootfsArchive,
            limits,
            names: &names,
            ..Request::new(&self.input)
        };
        let image = match self.store.import(&request, &Silent) {
            Ok(image) => image,
            Err(err) => return words(&err.to_string()),
        };
        let found = self.store.find("fuzz").unwrap().expect("an image that was imported is there");
        assert_eq!(found, image);
        self.store.flatten(&image, &Silent).expect("an image of ours reads back");
        let removed = self.store.remove("fuzz", &|_| None).unwrap();
        assert_eq!(removed.images, [image.digest]);
        ACCEPTED.into()
    }
}

/// A message without what differs from input to input: quoted names and numbers.
fn words(message: &str) -> String {
    let mut words = String::new();
    let mut is_quoted = false;
    let mut last = ' ';
    for letter in message.chars() {
        if letter == '"' && last != '\\' {
            is_quoted = !is_quoted;
            words.push('"');
        } else if !(is_quoted || letter.is_ascii_digit() && last.is_ascii_digit()) {
            words.push(if letter.is_ascii_digit() { '9' } else { letter });
        }
        last = letter;
    }
    let number = |word: &'_ str| if word.starts_with("9x") { "9".into() } else { word.to_owned() };
    words.split(' ').map(number).collect::<Vec<String>>().join(" ")
}

/// xorshift64*: repeats from its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.next() as usize % bound.max(1)
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// One archive of each kind that the reader knows.
fn seeds() -> Vec<Vec<u8>> {
    let sparse = [("GNU.sparse.major", &b"1"[..]), ("GNU.sparse.minor", b"0")];
    let sized =
        [&sparse[..], &[("GNU.sparse.name", b"s"), ("GNU.sparse.realsize", b"9999")]].concat();
    let map = [&b"1\n512\n3\n"[..], &[0; 504], b"abc"].concat();
    let old = Head { path: b"old", kind: b'S', size: 3, ..Head::default() };
    let long = Head { path: b"././@LongLink", kind: b'L', size: 5, ..Head::default() };
    let global = Head { path: b"g", kind: b'g', size: 12, ..Head::default() };
    let archives = [
        Tar::new().dir("d").file("d/a", b"1").hard("d/b", "d/a").symlink("l", "d"),
        Tar::new().file(".wh.gone", b"").dir("d").file("d/.wh..wh..opq", b"").file("d/x", b"2"),
        Tar::new().pax(&[("path", b"p"), ("mtime", b"1.5"), ("uid", b"70000")]).file("x", b"y"),
        Tar::new().pax(&[("SCHILY.xattr.user.a", b"v"), ("size", b"3")]).file("x", b"abc"),
        Tar::new().char_device("null", (1, 3)).char_device("z", (0, 0)),
        Tar::new().pax(&sized).file("GNUSparseFile.0/s", &map),
        Tar::new().pax(&[("GNU.sparse.map", b"0,3"), ("GNU.sparse.size", b"9")]).file("m", b"abc"),
        Tar::new().entry(&old, b"abc").file("f", &[7; 5000]),
        Tar::new().entry(&long, b"name\0").file("short", b"1"),
        Tar::new().entry(&global, b"12 uid=1000\n").file("f", b"1"),
    ];
    archives.into_iter().map(Tar::finish).collect()
}

fn mutate(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = random.pick(corpus).clone();
    for _ in 0..=random.below(6) {
        match random.below(8) {
            0 => flip(random, &mut bytes),
            1 => field(random, &mut bytes),
            2 => type_flag(random, &mut bytes),
            3 => splice(random, &mut bytes, corpus),
            4 => move_block(random, &mut bytes),
            5 => text(random, &mut bytes),
            6 => digits(random, &mut bytes),
            _ if random.below(8) == 0 => {
                let length = random.below(bytes.len() + 1);
                bytes.truncate(length);
            }
            _ => {}
        }
    }
    bytes.truncate(INPUT_MAX);
    if random.below(16) > 0 {
        mend(&mut bytes); // a wrong checksum would hide all that lies behind it
    }
    match random.below(12) {
        0 => pack(random, &gzip(&bytes)),
        1 => pack(random, &zstd(&bytes)),
        _ => bytes,
    }
}

/// A compressed archive, one time in two with a few broken bytes.
fn pack(random: &mut Random, packed: &[u8]) -> Vec<u8> {
    let mut packed = packed.to_vec();
    for _ in 0..random.below(2) * random.below(4) {
        flip(random, &mut packed);
    }
    packed
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

fn flip(random: &mut Random, bytes: &mut [u8]) {
    if !bytes.is_empty() {
        let at = random.below(bytes.len());
        bytes[at] = random.next() as u8;
    }
}

/// A number field of some header: octal, huge, negative, or the binary form.
fn field(random: &mut Random, bytes: &mut [u8]) {
    let block = random.below(bytes.len() / BLOCK) * BLOCK;
    let (at, length) = *random.pick(&[
        (100, 8),
        (108, 8),
        (116, 8),
        (124, 12),
        (136, 12),
        (329, 8),
        (337, 8),
        (386, 12),
        (483, 12),
    ]);
    let values: [&[u8]; 8] = [
        b"00000000000",
        b"77777777777",
        b"00000000777",
        b"\x80\0\0\0\0\0\0\0\0\0\0\xff",
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"-1\0\0\0\0\0\0\0\0\0\0",
        b"9 x\0\0\0\0\0\0\0\0\0",
    ];
    let value = random.pick(&values);
    let length = length.min(value.len());
    if let Some(place) = bytes.get_mut(block + at..block + at + length) {
        place.copy_from_slice(&value[value.len() - length..]);
    }
}

fn type_flag(random: &mut Random, bytes: &mut [u8]) {
    let block = random.below(bytes.len() / BLOCK) * BLOCK;
    if let Some(place) = bytes.get_mut(block + 156) {
        *place = *random.pick(b"\x000123456789LKxgSDVMNA");
    }
}

/// A part of another input, whole blocks of it more often than not.
fn splice(random: &mut Random, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let other = random.pick(corpus);
    let unit = if random.below(4) > 0 { BLOCK } else { 1 };
    let start = random.below(other.len() / unit + 1) * unit;
    let end = (start + (1 + random.below(6)) * unit).min(other.len());
    let at = (random.below(bytes.len() / unit + 1) * unit).min(bytes.len());
    let part = other.get(start..end).unwrap_or_default().to_vec();
    bytes.splice(at..at, part);
}

fn move_block(random: &mut Random, bytes: &mut Vec<u8>) {
    if bytes.len() >= 2 * BLOCK {
        let from = random.below(bytes.len() / BLOCK) * BLOCK;
        let block: Vec<u8> = bytes.drain(from..from + BLOCK).collect();
        let to = random.below(bytes.len() / BLOCK + 1) * BLOCK;
        if random.below(3) > 0 {
            bytes.splice(to..to, block);
        }
    }
}

/// A name that means something to somebody, where a name or a target may be.
fn text(random: &mut Random, bytes: &mut [u8]) {
    let names: [&[u8]; 14] = [
        b"..",
        b"../x",
        b"/etc/passwd",
        b".",
        b"./",
        b"d",
        b"d/a",
        b"l/x",
        b".wh.d",
        b".wh.",
        b".wh..wh..opq",
        b"d/.wh.a",
        b".wh..",
        b"a/b/c/d/e",
    ];
    let block = random.below(bytes.len() / BLOCK) * BLOCK;
    let at = block + *random.pick(&[0, 0, 157, 345]);
    let name = random.pick(&names);
    if let Some(place) = bytes.get_mut(at..at + name.len() + 1) {
        let (last, start) = place.split_last_mut().unwrap();
        start.copy_from_slice(name);
        *last = 0;
    }
}

/// One digit of a text: lengths of PAX records, sizes, maps.
fn digits(random: &mut Random, bytes: &mut [u8]) {
    let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at].is_ascii_digit()).collect();
    if !places.is_empty() {
        bytes[*random.pick(&places)] = b'0' + random.below(10) as u8;
    }
}

/// Puts right checksums into all blocks that may be headers.
fn mend(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(BLOCK) {
        let is_header = block[257..262] == *b"ustar";
        if let Some(block) = block.first_chunk_mut::<BLOCK>().filter(|_| is_header) {
            tar::seal(block);
        }
    }
}
