//! A parser of RESP2 replies that neither copies nor allocates.

use crate::steps;

/// The longest bulk string: Redis' own limit. A peer that announces more does not speak RESP.
const BULK_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// The longest line: a status, an error or a number.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Bytes examined of a line that may hold a short number: the type, up to seven digits and `\r`.
const SHORT_BYTES_MAX: usize = 9;

/// The max elements that may be outstanding within one reply.
const ELEMENTS_MAX: u64 = 1 << 24;

/// The bytes are not RESP. What follows them cannot be trusted either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the reply is not RESP2")]
pub struct Malformed;

/// A complete reply, or an element of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A line that begins with `+`.
    Status(&'a [u8]),
    /// A line that begins with `-`.
    Error(&'a [u8]),
    /// A number.
    Integer(i64),
    /// Any bytes.
    Bulk(&'a [u8]),
    /// A string or an array that is not there.
    Nil,
    /// A list.
    Array(Items<'a>),
}

impl<'a> Value<'a> {
    pub(crate) fn bytes(&self) -> Option<&'a [u8]> {
        match *self {
            Self::Status(bytes) | Self::Bulk(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// A number, whether Redis sent it as an integer or as text.
    pub(crate) fn number(&self) -> Option<u64> {
        match *self {
            Self::Integer(number) => number.try_into().ok(),
            _ => self.text()?.parse().ok(),
        }
    }

    pub(crate) fn items(self) -> Option<Items<'a>> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }
}

/// The elements of an array, all of which have arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Items<'a> {
    left: usize,
    bytes: &'a [u8],
}

impl<'a> Iterator for Items<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        let head = Head::parse(self.bytes).ok()??;
        // The array is complete, so its elements are. Only a nested array has to be measured.
        let total = match head.kind {
            Kind::Bulk(length) => head.bytes + length + 2,
            Kind::Array(_) => Measure::default().advance_from(Some(head), self.bytes).ok()??,
            Kind::Status | Kind::Error | Kind::Integer(_) | Kind::Nil => head.bytes,
        };
        let (whole, rest) = self.bytes.split_at_checked(total)?;
        self.bytes = rest;
        Some(head.value(whole))
    }
}

/// The value at the beginning of `bytes` and its length, or `None` if it is incomplete.
///
/// # Errors
/// The bytes are not RESP2.
pub fn parse(bytes: &[u8]) -> Result<Option<(Value<'_>, usize)>, Malformed> {
    let Some(head) = Head::parse(bytes)? else { return Ok(None) };
    let Some(total) = Measure::default().advance_from(Some(head), bytes)? else { return Ok(None) };
    Ok(Some((head.value(&bytes[..total]), total)))
}

/// The value that fills `bytes`, of the length that was [measured](Measure).
pub(super) fn measured(bytes: &[u8]) -> Result<Option<Value<'_>>, Malformed> {
    Ok(Head::parse(bytes)?.map(|head| head.value(bytes)))
}

/// How far a value has been measured that may be incomplete. Nested arrays are followed without recursion, so that no reply can
/// exhaust the stack.
#[derive(Debug)]
pub(super) struct Measure {
    /// Where the next element begins.
    at: usize,
    /// Elements that are to come, also the one at `at`.
    owed: u64,
}

impl Default for Measure {
    fn default() -> Self {
        Self { at: 0, owed: 1 }
    }
}

impl Measure {
    /// Goes on in `bytes`, which begin with what was measured before. Says how long the whole value is once it is complete.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        self.advance_from(None, bytes)
    }

    /// As [`Measure::advance`], with the first line of the next element if it has been parsed.
    #[inline]
    fn advance_from(&mut self, mut parsed: Option<Head>, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        while self.owed > 0 {
            steps::note(1);
            let head = match parsed.take() {
                Some(head) => Some(head),
                None => Head::parse(&bytes[self.at..])?,
            };
            let Some(head) = head else { return Ok(None) };
            let mut end = self.at + head.bytes;
            let mut owed = self.owed - 1;
            match head.kind {
                Kind::Bulk(length) => {
                    let Some(line_end) = bytes.get(end + length..end + length + 2) else { return Ok(None) };
                    if line_end != b"\r\n" {
                        return Err(Malformed);
                    }
                    end += length + 2;
                }
                Kind::Array(elements) => owed += elements as u64,
                Kind::Status | Kind::Error | Kind::Integer(_) | Kind::Nil => {}
            }
            if owed > ELEMENTS_MAX {
                return Err(Malformed);
            }
            (self.at, self.owed) = (end, owed);
        }
        Ok(Some(self.at))
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Status,
    Error,
    Integer(i64),
    Bulk(usize),
    Array(usize),
    Nil,
}

impl Kind {
    /// The kind for a type byte with a short number.
    #[inline]
    fn of_number(mark: u8, number: u32) -> Option<Self> {
        match mark {
            b'$' => Some(Self::Bulk(number as usize)),
            b'*' if u64::from(number) <= ELEMENTS_MAX => Some(Self::Array(number as usize)),
            b':' => Some(Self::Integer(number.into())),
            _ => None,
        }
    }
}

/// The first line of a value.
#[derive(Clone, Copy)]
struct Head {
    kind: Kind,
    /// The length of the line, with its end.
    bytes: usize,
}

impl Head {
    /// Always inlined. It runs eight times a message, which is a third of the time to parse one.
    #[inline(always)]
    fn parse(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        if let Some((number, line_bytes)) = short_number(bytes)
            && let Some(kind) = Kind::of_number(bytes[0], number)
        {
            return Ok(Some(Self { kind, bytes: line_bytes }));
        }
        Self::parse_any(bytes)
    }

    /// The general case.
    #[cold]
    fn parse_any(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some(mark) = bytes.first() else { return Ok(None) };
        if !b"+-:$*".contains(mark) {
            return Err(Malformed);
        }
        let Some(end) = bytes.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\r') else {
            return if bytes.len() < LINE_BYTES_MAX { Ok(None) } else { Err(Malformed) };
        };
        match bytes.get(end + 1) {
            None => return Ok(None),
            Some(b'\n') => {}
            Some(_) => return Err(Malformed),
        }
        let line = &bytes[1..end];
        let kind = match mark {
            b'+' => Kind::Status,
            b'-' => Kind::Error,
            b':' => Kind::Integer(integer(line)?),
            _ if line == b"-1" => Kind::Nil,
            b'$' => Kind::Bulk(count(line, BULK_BYTES_MAX)?),
            _ => Kind::Array(count(line, ELEMENTS_MAX)?),
        };
        Ok(Some(Self { kind, bytes: end + 2 }))
    }

    /// The value that begins with this line and fills `whole`.
    fn value(self, whole: &[u8]) -> Value<'_> {
        let line = &whole[1..self.bytes - 2];
        match self.kind {
            Kind::Status => Value::Status(line),
            Kind::Error => Value::Error(line),
            Kind::Integer(number) => Value::Integer(number),
            Kind::Nil => Value::Nil,
            Kind::Bulk(length) => Value::Bulk(&whole[self.bytes..self.bytes + length]),
            Kind::Array(left) => Value::Array(Items { left, bytes: &whole[self.bytes..] }),
        }
    }
}

/// Parses a line with a number of at max seven digits; returns the number and the length of the
/// line. Nearly all lines are such lengths, four in each message, so a path that looks at each
/// byte once pays off.
#[inline]
fn short_number(bytes: &[u8]) -> Option<(u32, usize)> {
    let mut number = 0;
    let mut at = 1;
    while at < SHORT_BYTES_MAX {
        let byte = *bytes.get(at)?;
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            let is_end = byte == b'\r' && at > 1 && bytes.get(at + 1) == Some(&b'\n');
            return is_end.then_some((number, at + 2));
        }
        number = number * 10 + u32::from(digit);
        at += 1;
    }
    None
}

fn integer(line: &[u8]) -> Result<i64, Malformed> {
    std::str::from_utf8(line).ok().and_then(|text| text.parse().ok()).ok_or(Malformed)
}

fn count(line: &[u8], max: u64) -> Result<usize, Malformed> {
    let count = u64::try_from(integer(line)?).map_err(|_| Malformed)?;
    if count > max { Err(Malformed) } else { usize::try_from(count).map_err(|_| Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b"+OK\r\n-ERR no\r\n:-42\r\n:1234567\r\n:12345678\r\n$5\r\nhe\r\no\r\n$-1\r\n*-1\r\n$0\r\n\r\n*0\r\n\
        *3\r\n$7\r\nmessage\r\n$1\r\nc\r\n*2\r\n:1\r\n*1\r\n+deep\r\n";

    fn show(value: Value<'_>) -> String {
        match value {
            Value::Array(items) => format!("[{}]", items.map(show).collect::<Vec<_>>().join(" ")),
            Value::Integer(number) => number.to_string(),
            Value::Nil => "nil".to_owned(),
            Value::Status(text) | Value::Error(text) | Value::Bulk(text) => String::from_utf8_lossy(text).into_owned(),
        }
    }

    fn values(mut bytes: &[u8]) -> (Vec<String>, usize) {
        let (mut found, whole) = (Vec::new(), bytes.len());
        while let Some((value, used)) = parse(bytes).unwrap() {
            found.push(show(value));
            bytes = &bytes[used..];
        }
        (found, whole - bytes.len())
    }

    #[test]
    fn a_stream_gives_the_same_values_wherever_it_is_cut() {
        let (all, used) = values(STREAM);
        let expected =
            ["OK", "ERR no", "-42", "1234567", "12345678", "he\r\no", "nil", "nil", "", "[]", "[message c [1 [deep]]]"];
        assert_eq!((all.as_slice(), used), (expected.map(str::to_owned).as_slice(), STREAM.len()));
        for cut in 0..=STREAM.len() {
            let (mut found, used) = values(&STREAM[..cut]);
            found.extend(values(&STREAM[used..]).0);
            assert_eq!(found, all, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_not_resp_is_refused() {
        let long = [b"+".as_slice(), &vec![b'x'; LINE_BYTES_MAX]].concat();
        for bytes in [
            b"HTTP/1.1 400\r\n".as_slice(),
            b":x\r\n",
            b":\r\n",
            b"$1\rx",
            b"=1\r\n",
            b":1\rx",
            b"$-2\r\n",
            b"$3\r\nabcde",
            b"$999999999999\r\n",
            b"*999999999999\r\n",
            b"*99999999999999999999999\r\n",
            &long,
        ] {
            assert_eq!(parse(bytes), Err(Malformed), "{}", String::from_utf8_lossy(&bytes[..bytes.len().min(20)]));
        }
        // Nested arrays add up.
        assert_eq!(parse(&b"*9000000\r\n".repeat(3)), Err(Malformed));
        assert_eq!(parse(&b"*1\r\n".repeat(100_000)), Ok(None));
    }
}
