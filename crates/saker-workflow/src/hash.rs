//! The 64-bit hash of pandas (`pandas.util.hash_array`), which NVTabular uses on CPUs.
//!
//! Numbers are taken as the unsigned integer with their bits, strings by SipHash-2-4; both are then mixed by the
//! finaliser of SplitMix64 (Steele, Lea & Flood 2014).

use siphasher::sip::SipHasher24;

/// What a missing value hashes to.
pub(crate) const NULL: u64 = u64::MAX;

/// Hash of a number's bits, widened without sign.
#[inline]
pub fn hash_bits(bits: u64) -> u64 {
    let mut x = bits;
    x ^= x >> 30;
    x = x.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^= x >> 27;
    x = x.wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Hash of a string's bytes.
#[inline]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    hash_bits(SipHasher24::new_with_key(b"0123456789123456").hash(bytes))
}

/// Hash of a value's hash together with the number of the row it stands in (`pandas.util.hash_pandas_object` with its index).
#[inline]
pub fn hash_with_row(hash: u64, row: u64) -> u64 {
    const MULTIPLIER: u64 = 1_000_003;
    let first = (0x34_5678 ^ hash).wrapping_mul(MULTIPLIER);
    let second = (first ^ hash_bits(row)).wrapping_mul(MULTIPLIER + 82_520 + 4);
    second.wrapping_add(97_531)
}
