//! Numbers of variable length (RFC 9000 §16).

use bytes::BufMut;

/// The largest number that can be written.
pub const MAX: u64 = (1 << 62) - 1;

/// The number at the front, and how many octets it takes. None if they are not all there.
pub fn read(octets: &[u8]) -> Option<(u64, usize)> {
    let first = *octets.first()?;
    let length = 1 << (first >> 6);
    let octets = octets.get(..length)?;
    let start = u64::from(first & 0x3f);
    let number = octets[1..]
        .iter()
        .fold(start, |number, octet| number << 8 | u64::from(*octet));
    Some((number, length))
}

/// Writes a number of at most [`MAX`] in its shortest form.
pub fn write(into: &mut impl BufMut, number: u64) {
    match number {
        0..0x40 => into.put_u8(number as u8),
        0x40..0x4000 => into.put_u16(number as u16 | 0x4000),
        0x4000..0x4000_0000 => into.put_u32(number as u32 | 0x8000_0000),
        _ => into.put_u64(number.min(MAX) | 0xc000_0000_0000_0000),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_rfc() {
        for (octets, number) in [
            (
                &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..],
                151_288_809_941_952_652,
            ),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ] {
            assert_eq!(read(octets), Some((number, octets.len())));
        }
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[0x40]), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(number in 0..=MAX) {
            let mut octets = Vec::new();
            write(&mut octets, number);
            prop_assert_eq!(read(&octets), Some((number, octets.len())));
        }
    }
}
