//! Protocol buffers, as far as an engine's builder speaks them: <https://protobuf.dev/programming-guides/encoding/>.

/// A field's value. Numbers of fixed length are none that we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'m> {
    Number(u64),
    Bytes(&'m [u8]),
}

impl<'m> Value<'m> {
    /// Returns the bytes of a text, an embedded message or bytes.
    pub fn bytes(self) -> &'m [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(_) => &[],
        }
    }

    /// Returns the text.
    pub fn text(self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    /// Returns the number.
    pub fn number(self) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::Bytes(_) => 0,
        }
    }
}

/// Returns a message's fields in order; what comes after something damaged is left out.
pub fn fields(message: &[u8]) -> impl Iterator<Item = (u64, Value<'_>)> {
    let mut rest = message;
    std::iter::from_fn(move || {
        loop {
            let key = number(&mut rest)?;
            let value = match key & 7 {
                0 => Value::Number(number(&mut rest)?),
                2 => {
                    let length = usize::try_from(number(&mut rest)?).ok()?;
                    let (bytes, after) = rest.split_at_checked(length)?;
                    rest = after;
                    Value::Bytes(bytes)
                }
                kind @ (1 | 5) => {
                    rest = rest.get(if kind == 1 { 8 } else { 4 }..)?;
                    continue;
                }
                _ => return None,
            };
            return Some((key >> 3, value));
        }
    })
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Adds a field of bytes to a message.
pub fn put_bytes(message: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    message.push(field << 3 | 2);
    put(message, bytes.len() as u64);
    message.extend_from_slice(bytes);
}

/// Adds a number to a message; zero is what is not there.
pub fn put_number(message: &mut Vec<u8>, field: u8, number: u64) {
    if number != 0 {
        message.push(field << 3);
        put(message, number);
    }
}

/// Adds a map from texts to texts to a message.
pub fn put_map<'m>(message: &mut Vec<u8>, field: u8, map: impl IntoIterator<Item = (&'m String, &'m String)>) {
    for (key, value) in map {
        let mut entry = Vec::new();
        put_bytes(&mut entry, 1, key.as_bytes());
        put_bytes(&mut entry, 2, value.as_bytes());
        put_bytes(message, field, &entry);
    }
}

/// Reads an entry of such a map.
pub fn entry(value: Value<'_>) -> (String, String) {
    let mut entry = (String::new(), String::new());
    for (field, value) in fields(value.bytes()) {
        match field {
            1 => entry.0 = value.text(),
            2 => entry.1 = value.text(),
            _ => {}
        }
    }
    entry
}

fn put(message: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        message.push(number as u8 | 0x80);
        number >>= 7;
    }
    message.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut message = vec![0x08, 0x96, 0x01];
        let long = vec![7; 300];
        put_bytes(&mut message, 2, b"text");
        put_bytes(&mut message, 4, &long);
        message.extend([0x2d, 1, 2, 3, 4]);
        put_bytes(&mut message, 6, b"");
        let read: Vec<_> = fields(&message).collect();
        assert_eq!(
            read,
            [
                (1, Value::Number(150)),
                (2, Value::Bytes(b"text")),
                (4, Value::Bytes(&long)),
                (6, Value::Bytes(b""))
            ]
        );
        assert_eq!(fields(&[0x12, 0xff]).count(), 0, "what is cut short is not read");
        let mut message = Vec::new();
        put_number(&mut message, 1, 0);
        put_number(&mut message, 3, 300);
        let map = std::collections::BTreeMap::from([("key".to_owned(), "value".to_owned())]);
        put_map(&mut message, 7, &map);
        let mut read = fields(&message);
        assert_eq!(read.next(), Some((3, Value::Number(300))));
        assert_eq!(entry(read.next().unwrap().1), ("key".to_owned(), "value".to_owned()));
    }
}
