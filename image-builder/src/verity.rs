//! A dm-verity hash tree behind the blocks of an image: a guest's kernel that is told the root hash reads no block that
//! differs from what was hashed.
//!
//! ```text
//! | data blocks ... | superblock | top level: 1 block | ... | lowest level: a digest for each data block | padding |
//! ```
//! Format 1 of the kernel (Documentation/admin-guide/device-mapper/verity.rst), SHA-256, blocks of 4 KiB, 128 digests in
//! a block. No salt: it hinders nobody from a file that everybody has, and the same image keeps the same hash. The
//! superblock is for tools (`veritysetup verify IMAGE IMAGE ROOT --hash-offset=`): a kernel is told all that it says.

use crate::erofs::BLOCK;
use crate::error::{Error, Result};
use crate::output::{Output, hex};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// What a kernel must be told, as it stands in the image's manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verity {
    pub algorithm: &'static str,
    pub block_size: u64,
    /// How many blocks are checked: all of the file system.
    pub data_blocks: u64,
    /// The first block of the tree, the superblock not counted.
    pub hash_start_block: u64,
    /// In hexadecimal digits.
    pub root_hash: String,
    /// In hexadecimal digits: none.
    pub salt: &'static str,
}

const DIGEST: usize = 32;
const BLOCK_BYTES: usize = 4096;
const DIGESTS_PER_BLOCK: usize = BLOCK_BYTES / DIGEST;
/// Fixed, as an image's own UUID is: what tells images apart is their hash.
const UUID: [u8; 16] = *b"hyperstart-verit";

/// Appends the tree over all that was written so far, which must be whole blocks.
pub fn append(output: &mut Output) -> Result<Verity> {
    let data_blocks = output.position() / BLOCK;
    if data_blocks == 0 || !output.position().is_multiple_of(BLOCK) {
        return Err(Error::io("verity: the image is not of whole blocks"));
    }
    let levels = levels(output, data_blocks)?;
    output.append(&superblock(data_blocks))?;
    let hash_start_block = output.position() / BLOCK;
    for level in levels.iter().rev() {
        output.append(level)?;
    }
    let root = match levels.last() {
        Some(top) => digest(top),
        None => digest(&output.read(0, BLOCK_BYTES)?), // one block: its digest is the root
    };
    Ok(Verity {
        algorithm: "sha256",
        block_size: BLOCK,
        data_blocks,
        hash_start_block,
        root_hash: hex(&root),
        salt: "",
    })
}

/// The levels of the tree from the lowest, each of whole blocks; the last is one block.
fn levels(output: &Output, data_blocks: u64) -> Result<Vec<Vec<u8>>> {
    let mut levels: Vec<Vec<u8>> = Vec::new();
    if data_blocks == 1 {
        return Ok(levels);
    }
    let mut lowest = Vec::new();
    for block in 0..data_blocks {
        lowest.extend(digest(&output.read(block * BLOCK, BLOCK_BYTES)?));
    }
    levels.push(whole_blocks(lowest));
    while let Some(below) = levels.last().filter(|level| level.len() > BLOCK_BYTES) {
        let above = below.chunks(BLOCK_BYTES).flat_map(digest).collect();
        levels.push(whole_blocks(above));
    }
    Ok(levels)
}

fn digest(block: &[u8]) -> [u8; DIGEST] {
    Sha256::digest(block).into()
}

fn whole_blocks(mut digests: Vec<u8>) -> Vec<u8> {
    digests.resize(digests.len().next_multiple_of(DIGESTS_PER_BLOCK * DIGEST), 0);
    digests
}

/// struct verity_sb of cryptsetup, in a block of its own.
fn superblock(data_blocks: u64) -> Vec<u8> {
    let block_size = u32::try_from(BLOCK).unwrap_or_default().to_le_bytes();
    let mut out = Vec::with_capacity(BLOCK_BYTES);
    out.extend(b"verity\0\0");
    out.extend(1u32.to_le_bytes()); // of the superblock
    out.extend(1u32.to_le_bytes()); // of the hash format
    out.extend(UUID);
    out.extend(b"sha256");
    out.resize(64, 0);
    out.extend(block_size);
    out.extend(block_size);
    out.extend(data_blocks.to_le_bytes());
    out.resize(BLOCK_BYTES, 0); // no salt
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree_of(blocks: usize) -> (Verity, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let mut output = Output::create(&path).unwrap();
        for index in 0..blocks {
            output.append(&vec![u8::try_from(index % 251 + 1).unwrap(); BLOCK_BYTES]).unwrap();
        }
        let verity = append(&mut output).unwrap();
        output.finish(&path).unwrap();
        (verity, std::fs::read(&path).unwrap())
    }

    /// Checks a block as the kernel does: from the block up to the root.
    fn is_trusted(verity: &Verity, image: &[u8], block: usize) -> bool {
        let at = |number: usize| &image[number * BLOCK_BYTES..(number + 1) * BLOCK_BYTES];
        let mut sizes = vec![usize::try_from(verity.data_blocks).unwrap()];
        while *sizes.last().unwrap() > 1 {
            sizes.push(sizes.last().unwrap().div_ceil(DIGESTS_PER_BLOCK));
        }
        let mut expected = digest(at(block));
        let mut index = block;
        for level in 1..sizes.len() {
            let start = usize::try_from(verity.hash_start_block).unwrap()
                + sizes[level + 1..].iter().sum::<usize>();
            let node = at(start + index / DIGESTS_PER_BLOCK);
            let place = index % DIGESTS_PER_BLOCK * DIGEST;
            if node[place..place + DIGEST] != expected {
                return false;
            }
            expected = digest(node);
            index /= DIGESTS_PER_BLOCK;
        }
        hex(&expected) == verity.root_hash
    }

    #[test]
    fn each_block_leads_to_the_root_whatever_the_height() {
        for blocks in [1, 2, 128, 129, 300] {
            let (verity, image) = tree_of(blocks);
            assert_eq!(verity.data_blocks, u64::try_from(blocks).unwrap());
            for block in [0, blocks / 2, blocks - 1] {
                assert!(is_trusted(&verity, &image, block), "block {block} of {blocks}");
            }
        }
    }

    #[test]
    fn a_changed_byte_in_data_or_tree_is_seen() {
        let (verity, image) = tree_of(300);
        let tree = usize::try_from(verity.hash_start_block).unwrap() * BLOCK_BYTES;
        for place in [7 * BLOCK_BYTES + 5, tree, tree + BLOCK_BYTES + 7 * DIGEST] {
            let mut changed = image.clone();
            changed[place] ^= 1;
            assert!(!is_trusted(&verity, &changed, 7), "byte {place}");
        }
    }
}
