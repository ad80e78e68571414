//! The fields of a protobuf message one by one (protobuf.dev, "Encoding"), without making a tree of it: a message of some
//! bytes per record would become one of some hundred.

use crate::error::{Error, Kind, Result};

/// The value of a field as it is encoded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// Walks the fields of a message. Ends behind the first error.
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub fn of(message: &'a [u8]) -> Fields<'a> {
        Fields(message)
    }

    fn take(&mut self, count: u64) -> Option<&'a [u8]> {
        let count = usize::try_from(count).ok().filter(|count| *count <= self.0.len())?;
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in 0..10 {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << (7 * shift);
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn field(&mut self) -> Option<(u32, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            // Groups are of protobuf 1.
            _ => return None,
        };
        Some((u32::try_from(key >> 3).ok()?, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or_else(|| broken("a field without its end")))
    }
}

/// The messages in field `number`, in order.
pub fn messages(message: &[u8], number: u32) -> impl Iterator<Item = Result<&[u8]>> {
    Fields::of(message).filter_map(move |field| match field {
        Ok((found, Value::Bytes(bytes))) if found == number => Some(Ok(bytes)),
        Ok(_) => None,
        Err(err) => Some(Err(err)),
    })
}

pub fn broken(why: &str) -> Error {
    Error::new(Kind::InvalidText, format!("the body is not the protobuf message that it should be: {why}"))
        .with_detail("Nothing of it was kept.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_all_kinds() {
        let bytes = [0x08, 0x96, 0x01, 0x11, 1, 0, 0, 0, 0, 0, 0, 0, 0x1a, 1, 7, 0x25, 2, 0, 0, 0];
        let fields: Vec<_> = Fields::of(&bytes).map(Result::unwrap).collect();
        let wanted = [(1, Value::Varint(150)), (2, Value::Fixed64(1)), (3, Value::Bytes(&[7])), (4, Value::Fixed32(2))];
        assert_eq!(fields, wanted);
        assert_eq!(messages(&bytes, 3).collect::<Result<Vec<_>>>().unwrap(), [&[7]]);
    }

    #[test]
    fn what_is_cut_off_is_one_error() {
        for bytes in [&[0x1a, 5, 1][..], &[0x80; 12], &[0x0b], &[0x11, 1]] {
            let fields: Vec<_> = Fields::of(bytes).collect();
            assert!(fields.len() == 1 && fields[0].is_err(), "{bytes:?}");
        }
    }
}
