//! A Bloom filter in a Redis string, format version 1.
//!
//! | bytes | content |
//! |---|---|
//! | 0–1 | `sb` |
//! | 2 | 1, the version |
//! | 3 | k, the number of hashes, 1 to 30 |
//! | 4–7 | m, the bits of layer 0, u32 little-endian, a multiple of 8, 8 to 287,551,752 |
//! | 8… | the layers, one after the other; layer i has m · 2^i bits |
//!
//! Bits are numbered as SETBIT numbers them: bit b is in byte b / 8, the most significant first. Bits past the end of the string are 0, so
//! a layer starts to exist with its first bit.
//!
//! An item id is hashed as 8 bytes (i64, little-endian) with MurmurHash3 x64 128, seed 0, giving two u64 h1 and h2. In a layer of M bits
//! it has the bits (h1 + j · h2 mod 2^64) mod M for j = 0 … k-1 (Kirsch and Mitzenmacher, "Less hashing, same performance", 2006).
//! An item is in the filter if one layer has all its bits.
//!
//! A writer sets an item's bits in the last layer. Once half of that layer's bits are set, it has reached its capacity, and the writer uses
//! the next layer. Writers only ever set bits, so any number of them can write at once.

use crate::StoreError;

/// Bytes before the first layer.
pub const HEADER: usize = 8;

const MAGIC: [u8; 3] = [b's', b'b', 1];
const MOST_HASHES: u8 = 30;
/// The largest layer 0 that [`Geometry::new`] makes, 36 MB. A damaged header must not request more memory.
const MOST_FIRST_BITS: u32 = 287_551_752;
/// A Redis string holds at most 512 MB.
const MOST_BITS: u64 = 1 << 32;

/// The sizes in a filter's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    bits: u32,
    hashes: u8,
}

impl Geometry {
    /// A filter whose first layer holds `capacity` items at `error_rate`, the share of unseen items that count as seen. m = ⌈-n ln p / (ln
    /// 2)²⌉ rounded up to whole bytes, k = round(-log2 p) (Bloom 1970).
    ///
    /// # Errors
    /// Returns [`StoreError::Settings`] for a capacity outside 1 to 10,000,000 or a rate outside 0.000001 to 0.5.
    pub fn new(capacity: u32, error_rate: f64) -> Result<Self, StoreError> {
        if !(1..=10_000_000).contains(&capacity) {
            return Err(StoreError::Settings(format!(
                "capacity {capacity}; accepted: 1 to 10000000"
            )));
        }
        if !(1e-6..=0.5).contains(&error_rate) {
            return Err(StoreError::Settings(format!(
                "error rate {error_rate}; accepted: 0.000001 to 0.5"
            )));
        }
        let ln2 = std::f64::consts::LN_2;
        let bits = (f64::from(capacity) * -error_rate.ln() / (ln2 * ln2)).ceil() as u32;
        Ok(Self {
            bits: bits.next_multiple_of(8),
            hashes: (-error_rate.log2()).round().max(1.0) as u8,
        })
    }

    /// The header.
    #[must_use]
    pub fn header(self) -> [u8; HEADER] {
        let [a, b, c, d] = self.bits.to_le_bytes();
        let [x, y, z] = MAGIC;
        [x, y, z, self.hashes, a, b, c, d]
    }

    /// Reads a header.
    ///
    /// # Errors
    /// Returns [`StoreError::Data`] if the bytes do not start a filter of this version.
    pub fn read(bytes: &[u8]) -> Result<Self, StoreError> {
        Self::split(bytes).map(|(geometry, _)| geometry)
    }

    /// Reads the header; returns it and the layers after it.
    fn split(bytes: &[u8]) -> Result<(Self, &[u8]), StoreError> {
        let refuse =
            |why: &str| StoreError::Data(format!("not a seen-items bitmap of version 1: {why}"));
        let Some(([x, y, z, hashes, a, b, c, d], layers)) = bytes.split_first_chunk::<HEADER>()
        else {
            return Err(refuse("shorter than its header"));
        };
        let geometry = Self {
            bits: u32::from_le_bytes([*a, *b, *c, *d]),
            hashes: *hashes,
        };
        if [*x, *y, *z] != MAGIC {
            return Err(refuse("another header"));
        }
        if !(1..=MOST_HASHES).contains(hashes)
            || !(8..=MOST_FIRST_BITS).contains(&geometry.bits)
            || !geometry.bits.is_multiple_of(8)
        {
            return Err(refuse("sizes out of range"));
        }
        Ok((geometry, layers))
    }
}

/// The two hashes of an item id: MurmurHash3 x64 128, seed 0, of its 8 little-endian bytes.
#[must_use]
pub fn hash(item: i64) -> (u64, u64) {
    fn mix(mut h: u64) -> u64 {
        h ^= h >> 33;
        h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
        h ^= h >> 33;
        h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        h ^ (h >> 33)
    }
    // The general algorithm for a tail of 8 bytes without a whole block.
    let k1 = (item as u64)
        .wrapping_mul(0x87c3_7b91_1142_53d5)
        .rotate_left(31)
        .wrapping_mul(0x4cf5_ad43_2745_937f);
    let (mut h1, mut h2) = (k1 ^ 8, 8_u64);
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    h1 = mix(h1);
    h2 = mix(h2);
    h1 = h1.wrapping_add(h2);
    (h1, h2.wrapping_add(h1))
}

/// The bits of an item in a layer of `bits` bits.
fn positions((h1, h2): (u64, u64), hashes: u8, bits: u64) -> impl Iterator<Item = u64> {
    (0..u64::from(hashes)).map(move |j| h1.wrapping_add(j.wrapping_mul(h2)) % bits)
}

fn bit(bytes: &[u8], position: u64) -> bool {
    bytes
        .get((position / 8) as usize)
        .is_some_and(|byte| byte & (0x80 >> (position % 8)) != 0)
}

/// A filter as read from the store.
#[derive(Clone, Copy, Debug)]
pub struct Filter<'b> {
    geometry: Geometry,
    layers: &'b [u8],
}

impl<'b> Filter<'b> {
    /// Reads a string.
    ///
    /// # Errors
    /// Returns an error as [`Geometry::read`] does.
    pub fn read(bytes: &'b [u8]) -> Result<Self, StoreError> {
        let (geometry, layers) = Geometry::split(bytes)?;
        Ok(Self { geometry, layers })
    }

    /// Whether the filter contains the item. A share `error_rate` of the other items also returns true.
    #[must_use]
    pub fn contains(&self, item: i64) -> bool {
        let hashes = hash(item);
        let mut layers = self.layers;
        let mut bits = u64::from(self.geometry.bits);
        while !layers.is_empty() {
            if positions(hashes, self.geometry.hashes, bits).all(|position| bit(layers, position)) {
                return true;
            }
            layers = layers.get((bits / 8) as usize..).unwrap_or_default();
            bits *= 2;
        }
        false
    }
}

/// The bits that a writer has to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The filter's sizes.
    pub geometry: Geometry,
    /// Bits to set, counted from the start of the string.
    pub bits: Vec<u64>,
}

/// The bits to set so that the filter contains `items`. `stored` is the filter in the store; `None` means that it does not exist and is to
/// be made with `geometry`. Items that are already in the filter change nothing.
///
/// # Errors
/// Returns an error as [`Geometry::read`] does.
pub fn insert(
    stored: Option<&[u8]>,
    geometry: Geometry,
    items: &[i64],
) -> Result<Change, StoreError> {
    let (geometry, mut layers) = match stored {
        None => (geometry, Vec::new()),
        Some(bytes) => {
            let (geometry, layers) = Geometry::split(bytes)?;
            (geometry, layers.to_vec())
        }
    };
    let mut set = Vec::new();

    // The last existing layer: its first byte after the header, its number of bits and of set bits.
    let (mut start, mut bits) = (0, u64::from(geometry.bits));
    while layers.len() > start + (bits / 8) as usize {
        start += (bits / 8) as usize;
        bits *= 2;
    }
    let mut ones = layers
        .iter()
        .skip(start)
        .map(|byte| u64::from(byte.count_ones()))
        .sum::<u64>();

    for &item in items {
        let filter = Filter {
            geometry,
            layers: &layers,
        };
        if filter.contains(item) {
            continue;
        }
        let next = start + (bits / 8) as usize;
        if ones * 2 >= bits && (HEADER + next) as u64 * 8 + bits * 2 <= MOST_BITS {
            layers.resize(next, 0);
            (start, bits, ones) = (next, bits * 2, 0);
        }
        for position in positions(hash(item), geometry.hashes, bits) {
            let at = start + (position / 8) as usize;
            let byte = match layers.get_mut(at) {
                Some(byte) => byte,
                None => {
                    layers.resize(at, 0);
                    layers.push_mut(0)
                }
            };
            let mask = 0x80 >> (position % 8);
            if *byte & mask == 0 {
                *byte |= mask;
                ones += 1;
                set.push((HEADER + start) as u64 * 8 + position);
            }
        }
    }
    Ok(Change {
        geometry,
        bits: set,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Applies a change as the store does.
    fn apply(stored: Option<Vec<u8>>, change: &Change) -> Vec<u8> {
        let mut bytes = stored.unwrap_or_else(|| change.geometry.header().to_vec());
        for position in &change.bits {
            let byte = (position / 8) as usize;
            if bytes.len() <= byte {
                bytes.resize(byte + 1, 0);
            }
            bytes[byte] |= 0x80 >> (position % 8);
        }
        bytes
    }

    #[test]
    fn the_hash_is_murmur3_x64_128() {
        for item in [
            0,
            1,
            -1,
            42,
            2465,
            i64::from(i32::MAX),
            i64::MIN,
            i64::MAX,
            0x0123_4567_89ab_cdef,
        ] {
            let expected = murmur3::murmur3_x64_128(&mut item.to_le_bytes().as_slice(), 0).unwrap();
            assert_eq!(
                hash(item),
                (expected as u64, (expected >> 64) as u64),
                "{item}"
            );
        }
    }

    /// Filters must stay readable: these bytes never change within version 1.
    #[test]
    fn the_format_does_not_change() {
        let geometry = Geometry::new(10, 0.01).unwrap();
        assert_eq!(geometry.header(), *b"sb\x01\x07\x60\0\0\0");
        let bytes = apply(None, &insert(None, geometry, &[1, 42, 2465]).unwrap());
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "7362010760000000000280c020a0008804001201");
        let filter = Filter::read(&bytes).unwrap();
        assert!([1, 42, 2465].iter().all(|&item| filter.contains(item)));
        assert!(![2, 3, 4, 5].iter().any(|&item| filter.contains(item)));
    }

    #[test]
    fn the_error_rate_holds_while_layers_are_added() {
        let geometry = Geometry::new(1000, 0.01).unwrap();
        let mut stored: Option<Vec<u8>> = None;
        for chunk in (0..6000).collect::<Vec<i64>>().chunks(50) {
            let change = insert(stored.as_deref(), geometry, chunk).unwrap();
            stored = Some(apply(stored, &change));
        }
        let bytes = stored.unwrap();
        // 1000 + 2000 + 4000 items fit in three layers, which take 1.2 + 2.4 + 4.8 kB.
        assert!(bytes.len() < HEADER + 9586 / 8 * 7 + 16, "{}", bytes.len());
        let filter = Filter::read(&bytes).unwrap();
        assert!((0..6000).all(|item| filter.contains(item)));
        let wrong = (1_000_000..1_100_000)
            .filter(|&item| filter.contains(item))
            .count();
        assert!(wrong < 3_500, "{wrong} of 100,000");
    }

    #[test]
    fn writers_that_do_not_see_each_other_lose_nothing() {
        let geometry = Geometry::new(100, 0.01).unwrap();
        let a = insert(None, geometry, &[1, 2, 3]).unwrap();
        let b = insert(None, geometry, &[4, 5]).unwrap();
        let bytes = apply(Some(apply(None, &a)), &b);
        let filter = Filter::read(&bytes).unwrap();
        assert!((1..=5).all(|item| filter.contains(item)));
    }

    #[test]
    fn other_strings_are_refused() {
        for bytes in [
            &b""[..],
            b"sb\x01",
            b"sb\x02\x07\x60\0\0\0",
            b"sb\x01\0\x60\0\0\0",
            b"sb\x01\x07\0\0\0\0",
            b"sb\x01\x07\x61\0\0\0",
            b"sb\x01\x07\xf8\xff\xff\xff",
        ] {
            assert!(Filter::read(bytes).is_err(), "{bytes:?}");
        }
        let largest = Geometry::new(10_000_000, 1e-6).unwrap();
        assert_eq!(largest.bits, MOST_FIRST_BITS);
        assert_eq!(Geometry::read(&largest.header()).unwrap(), largest);
        assert!(Geometry::new(0, 0.01).is_err());
        assert!(Geometry::new(100, f64::NAN).is_err());
    }

    proptest! {
        #[test]
        fn what_is_inserted_is_found(
            capacity in 1_u32..200,
            batches in prop::collection::vec(prop::collection::vec(any::<i64>(), 0..60), 1..8),
        ) {
            let geometry = Geometry::new(capacity, 0.05).unwrap();
            let mut stored: Option<Vec<u8>> = None;
            for batch in &batches {
                let change = insert(stored.as_deref(), geometry, batch).unwrap();
                stored = Some(apply(stored, &change));
            }
            let bytes = stored.unwrap();
            let filter = Filter::read(&bytes).unwrap();
            prop_assert!(batches.iter().flatten().all(|&item| filter.contains(item)));
        }

        #[test]
        fn any_bytes_can_be_asked(bytes in prop::collection::vec(any::<u8>(), 0..100), item in any::<i64>()) {
            let mut forged = b"sb\x01\x07\x08\0\0\0".to_vec();
            forged.extend(&bytes);
            let _ = Filter::read(&forged).unwrap().contains(item);
            let _ = Filter::read(&bytes).map(|filter| filter.contains(item));
        }
    }
}
