use std::cell::Cell;
use std::rc::Rc;

use super::*;

fn named(name: &str) -> Reader {
    Reader::Named(name.to_owned())
}

fn at(offset: u64) -> Start {
    Start { offset, or_oldest: false }
}

/// Writes as a pipe does: as much as there is room for.
fn write(ring: &mut Ring, mut data: &[u8]) -> usize {
    let mut written = 0;
    while !data.is_empty() && ring.has_room() {
        let count = ring.append(false, |chunk| {
            let count = data.len().min(chunk.capacity() - chunk.len());
            chunk.extend_from_slice(&data[..count]);
            count
        });
        data = &data[count..];
        written += count;
    }
    written
}

fn bytes(count: usize) -> Vec<u8> {
    (0..251_u8).cycle().take(count).collect()
}

#[test]
fn with_no_reader_nothing_is_dropped_and_the_writer_waits() {
    let mut ring = Ring::new(4096);
    assert_eq!(write(&mut ring, &bytes(10_000)), 4096);
    assert!(!ring.has_room());
    assert_eq!(ring.copy(0, 10_000), bytes(4096));
    assert_eq!((ring.oldest(), ring.end()), (0, 4096));
}

#[test]
fn room_is_made_up_to_the_slowest_reader() {
    let mut ring = Ring::new(8192);
    let (quick, slow) = (named("quick"), Reader::Connection(1));
    ring.attach(&quick, at(0)).unwrap();
    ring.attach(&slow, at(0)).unwrap();
    assert_eq!(write(&mut ring, &bytes(9000)), 8192);
    ring.attach(&quick, at(8192)).unwrap();
    assert!(!ring.has_room(), "the slow one has nothing yet");
    ring.attach(&slow, at(100)).unwrap();
    assert!(!ring.has_room(), "a few bytes are not worth a read");
    ring.attach(&slow, at(4000)).unwrap();
    assert!(ring.has_room());
    assert_eq!(ring.oldest(), 4000);
    assert_eq!(ring.copy(4000, 10), bytes(4010)[4000..]);
    assert!(ring.release(&slow) && !ring.release(&slow));
    assert_eq!(ring.oldest(), 8192);
    assert!(ring.chunks.is_empty() && ring.is_taken());
}

#[test]
fn offsets_below_and_beyond_are_out_of_range() {
    let mut ring = Ring::new(4096);
    write(&mut ring, &bytes(1000));
    ring.attach(&named("log"), at(600)).unwrap();
    let err = ring.attach(&named("log"), at(599)).unwrap_err();
    assert_eq!(err.code(), Code::OutOfRange);
    assert!(err.message().contains("600"), "{err}");
    assert_eq!(ring.attach(&named("x"), Start { offset: 0, or_oldest: true }).unwrap(), 600);
    let err = ring.attach(&named("log"), Start { offset: 1001, or_oldest: true }).unwrap_err();
    assert_eq!(err.code(), Code::OutOfRange);
    assert_eq!(ring.position(&named("log")), Some(600));
    assert_eq!(ring.locate(at(1000)).unwrap(), 1000);
}

#[test]
fn readers_with_a_name_are_few() {
    let mut ring = Ring::new(4096);
    for number in 0..NAMED_MOST {
        ring.attach(&named(&number.to_string()), at(0)).unwrap();
        ring.attach(&Reader::Connection(number as u64), at(0)).unwrap();
    }
    ring.attach(&named("0"), at(0)).unwrap();
    let err = ring.attach(&named("more"), at(0)).unwrap_err();
    assert_eq!(err.code(), Code::ResourceExhausted);
}

#[test]
fn what_is_drained_at_an_exit_may_be_beyond_the_capacity() {
    let mut ring = Ring::new(4096);
    write(&mut ring, &bytes(4096));
    ring.append(true, |chunk| chunk.extend_from_slice(&[7; 1000]));
    assert_eq!(ring.end(), 5096);
    ring.attach(&named("x"), at(4096)).unwrap();
    assert_eq!(ring.copy(4096, 2000), [7; 1000]);
}

/// Whatever the sizes of writes and reads: the bytes come out as they went in, and no more than the capacity is held.
#[test]
fn bytes_come_out_as_they_went_in() {
    let mut random = 1_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % below
    };
    let (data, reader) = (bytes(400_000), Reader::Connection(0));
    let mut ring = Ring::new(70_000);
    ring.attach(&reader, at(0)).unwrap();
    let (mut written, mut read) = (0, Vec::new());
    while read.len() < data.len() {
        let most = usize::try_from(next(50_000)).unwrap().min(data.len() - written);
        written += write(&mut ring, &data[written..][..most]);
        let held: usize = ring.chunks.iter().map(Vec::len).sum();
        assert!(ring.kept() <= 70_000 && held < 70_000 + LARGEST_CHUNK);
        read.extend(ring.copy(read.len() as u64, usize::try_from(next(60_000)).unwrap()));
        ring.attach(&reader, at(read.len() as u64)).unwrap();
    }
    assert!(read == data);
    assert!(ring.chunks.is_empty());
}

#[test]
fn wide_one_holds_more_and_its_place_until_that_is_taken() {
    let (narrow, wide) = (64 << 10, 512 << 10);
    let (count, mut ring, reader) =
        (Rc::new(Cell::new(0)), Ring::new(narrow), Reader::Connection(1));
    ring.attach(&reader, at(0)).unwrap();
    ring.widen_if_full(|| Counted::new(&count, 1));
    assert!(!ring.is_wide(), "it is not full");
    let data = bytes(2 * wide);
    assert_eq!(write(&mut ring, &data), narrow);
    ring.widen_if_full(|| Counted::new(&count, 1));
    assert_eq!(write(&mut ring, &data[narrow..]), wide - narrow);
    ring.attach(&reader, at(wide as u64)).unwrap();
    assert_eq!(ring.spare.len(), SPARE, "chunks are used again");
    assert_eq!(write(&mut ring, &data[wide..]), wide);
    assert_eq!(ring.copy(wide as u64, wide), data[wide..]);
    ring.narrow();
    assert!(ring.spare.is_empty() && !ring.has_room() && !ring.is_wide());
    assert!(Counted::new(&count, 1).is_none(), "it still holds as much");
    ring.attach(&reader, at((2 * wide - narrow) as u64)).unwrap();
    assert!(Counted::new(&count, 1).is_some() && !ring.has_room());
    let mut small = Ring::new(4096);
    write(&mut small, &data);
    small.widen_if_full(|| Counted::new(&count, 1));
    assert_eq!(write(&mut small, &data), 7 * 4096, "in proportion");
}
