//! Netlink attributes: a reader that never panics and a writer for nested ones.

const HEADER_BYTES: usize = 4;
const NESTED: u16 = 1 << 15;
const TYPE_MASK: u16 = 0x3fff;

/// Iterates over the attributes of `bytes`; stops at the first one that does not fit.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (length, kind) = header(rest)?;
        let value = rest.get(HEADER_BYTES..length)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((kind & TYPE_MASK, value))
    })
}

/// The first attribute of type `kind` in `bytes`.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(found, value)| (found == kind).then_some(value))
}

/// A value in network byte order, or none when the length is wrong.
pub(crate) fn be16(value: &[u8]) -> Option<u16> {
    value.try_into().ok().map(u16::from_be_bytes)
}

/// A value in network byte order, or none when the length is wrong.
pub(crate) fn be32(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_be_bytes)
}

fn header(bytes: &[u8]) -> Option<(usize, u16)> {
    let length = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
    let kind = u16::from_ne_bytes(bytes.get(2..HEADER_BYTES)?.try_into().ok()?);
    Some((usize::from(length), kind))
}

pub(crate) const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

/// Appends attributes to a message.
pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    pub(crate) const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Appends an attribute, padded. Values of this crate are a few bytes long.
    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(HEADER_BYTES + value.len()).unwrap_or(u16::MAX);
        self.out.extend_from_slice(&length.to_ne_bytes());
        self.out.extend_from_slice(&kind.to_ne_bytes());
        self.out.extend_from_slice(value);
        self.out.resize(aligned(self.out.len()), 0);
    }

    /// Appends a nested attribute whose content `fill` writes.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.out.len();
        self.put(kind | NESTED, &[]);
        fill(self);
        let length = u16::try_from(self.out.len() - start).unwrap_or(u16::MAX);
        if let Some(header) = self.out.get_mut(start..start + 2) {
            header.copy_from_slice(&length.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_attributes_are_found_again() {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        writer.put(1, &[1]);
        writer.nest(2, |inner| {
            inner.put(3, &[1, 2, 3, 4, 5]);
            inner.put(4, &[6, 7]);
        });
        assert_eq!(find(&bytes, 1), Some(&[1][..]));
        let inner = find(&bytes, 2).unwrap();
        assert_eq!(find(inner, 3), Some(&[1, 2, 3, 4, 5][..]));
        assert_eq!(find(inner, 4).and_then(be16), Some(0x0607));
        assert_eq!(find(inner, 5), None);
    }

    #[test]
    fn a_length_beyond_the_end_or_below_the_header_ends_the_list() {
        for length in [0_u16, 3, 9, u16::MAX] {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend([1, 0, 9, 9, 9, 9]);
            assert_eq!(attributes(&bytes).count(), 0, "length {length}");
        }
    }
}
