//! The info block of Linux's nvdimm subsystem ("pfn", `struct nd_pfn_sb` of drivers/nvdimm/pfn.h).
//!
//! It lies 4 KiB into a namespace and tells a kernel where the struct pages of the memory are kept, without which a raw
//! nvdimm is a block device that cannot be mapped (DAX). This one says: in the guest's memory, and the data begins at
//! 8 KiB, the least that is allowed. `ndctl create-namespace --mode=fsdax --map=mem` writes the same on hardware.

/// Where it lies, in bytes.
pub const OFFSET: u64 = 4096;
/// Where the device begins that the kernel makes of the rest.
pub const DATA_OFFSET: u64 = 8192;

const SIZE: usize = 4096;
/// Struct pages in memory (PFN_MODE_RAM).
const MODE_RAM: u32 = 1;
/// Of the mapping: what the kernel can map at least, since the data is no multiple of more away from its place.
const ALIGNMENT: u32 = 4096;
/// The largest struct page of 64-bit kernels.
const STRUCT_PAGE: u16 = 64;
/// Fixed, as the image's own.
const UUID: [u8; 16] = *b"hyperstart-fsdax";

/// The block.
pub fn bytes() -> Vec<u8> {
    let mut out = Vec::with_capacity(SIZE);
    out.extend(b"NVDIMM_PFN_INFO\0");
    out.extend(UUID);
    out.extend([0; 16]); // of a namespace without a label
    out.extend(0u32.to_le_bytes()); // flags
    out.extend(1u16.to_le_bytes()); // major version
    out.extend(4u16.to_le_bytes()); // minor version: all fields below count
    out.extend(DATA_OFFSET.to_le_bytes());
    out.extend(0u64.to_le_bytes()); // pages that are kept on the device
    out.extend(MODE_RAM.to_le_bytes());
    out.extend(0u32.to_le_bytes()); // padding at the start
    out.extend(0u32.to_le_bytes()); // truncation at the end
    out.extend(ALIGNMENT.to_le_bytes());
    out.extend(ALIGNMENT.to_le_bytes()); // page size
    out.extend(STRUCT_PAGE.to_le_bytes());
    out.resize(SIZE - 8, 0);
    let checksum = fletcher64(&out);
    out.extend(checksum.to_le_bytes());
    out
}

/// Over the block with a checksum of 0, in words of 32 bits (nd_fletcher64); zeros at the end add to the upper sum.
fn fletcher64(bytes: &[u8]) -> u64 {
    let words = bytes
        .chunks(4)
        .map(|word| word.iter().rev().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte)));
    let (low, high) = words.chain([0, 0]).fold((0u32, 0u64), |(low, high), word| {
        let low = low.wrapping_add(word);
        (low, high.wrapping_add(u64::from(low)))
    });
    high << 32 | u64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_is_one_page_and_sums_up() {
        let block = bytes();
        assert_eq!((block.len(), &block[..16]), (4096, &b"NVDIMM_PFN_INFO\0"[..]));
        let stored = u64::from_le_bytes(block[4088..].try_into().unwrap());
        assert_eq!(stored, fletcher64(&block[..4088]));
        // Two words, by hand: low 1, 3; high 1 + 3.
        assert_eq!(fletcher64(&[1, 0, 0, 0, 2, 0, 0, 0]), (1 + 3 + 3 + 3) << 32 | 3);
    }
}
