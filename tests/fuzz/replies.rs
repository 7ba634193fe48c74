//! The replies of Redis.

use roomcast::internals::resp::{Value, parse};

use crate::mutation::Corpus;
use crate::run::run;

fn corpus() -> Corpus {
    let inputs: [&[u8]; 6] = [
        b"+OK\r\n-ERR no\r\n:-42\r\n:1234567\r\n:12345678\r\n$5\r\nhe\r\no\r\n$-1\r\n*-1\r\n$0\r\n\r\n*0\r\n",
        b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n*2\r\n:1\r\n*1\r\n+deep\r\n",
        b"*2\r\n$1\r\n0\r\n*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\nm\r\n$5\r\nhello\r\n",
        b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*0\r\n",
        b"-MOVED 3999 127.0.0.1:6381\r\n+PONG\r\n",
        b"$12\r\nredis_mode:x\r\n*2\r\n$-1\r\n:9223372036854775807\r\n",
    ];
    Corpus {
        inputs: inputs.map(<[u8]>::to_vec).into(),
        words: &[
            b"\r\n",
            b"\r",
            b"*",
            b"$",
            b":",
            b"*2\r\n",
            b"$-1\r\n",
            b"*-1\r\n",
            b"*16777216\r\n",
            b"*9000000\r\n",
            b"$536870912\r\n",
            b"$1\r\n",
            b"+\r\n",
        ],
    }
}

/// Writes a value as Redis would, and counts it with its elements. All of it lies within `input`.
fn write(value: Value<'_>, input: &[u8], written: &mut Vec<u8>) -> usize {
    let within = |bytes: &[u8]| {
        let (all, part) = (input.as_ptr_range(), bytes.as_ptr_range());
        assert!(all.start <= part.start && part.end <= all.end, "a value is a part of the input");
        let behind = &input[part.end as usize - all.start as usize..];
        assert!(behind.starts_with(b"\r\n"), "the end of a line is behind {}", bytes.escape_ascii());
    };
    let mut line = |mark: char, text: &[u8]| {
        within(text);
        written.extend([&[mark as u8], text, b"\r\n"].concat());
    };
    match value {
        Value::Status(text) => line('+', text),
        Value::Error(text) => line('-', text),
        Value::Integer(number) => written.extend(format!(":{number}\r\n").into_bytes()),
        Value::Bulk(bytes) => {
            within(bytes);
            written.extend(format!("${}\r\n", bytes.len()).into_bytes());
            written.extend([bytes, b"\r\n"].concat());
        }
        Value::Nil => written.extend(b"$-1\r\n"),
        Value::Array(items) => {
            let (mut elements, mut count, mut values) = (Vec::new(), 0, 1);
            for item in items {
                values += write(item, input, &mut elements);
                count += 1;
                assert!(elements.len() < 64 * 1024, "more than the input holds");
            }
            written.extend(format!("*{count}\r\n").into_bytes());
            written.extend(elements);
            return values;
        }
    }
    1
}

/// Reads a whole value as simply as can be: what [`write`] writes of it, and its length.
fn read_simply(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let end = bytes.iter().position(|byte| *byte == b'\r').filter(|end| bytes.get(end + 1) == Some(&b'\n'))?;
    let (line, mut used) = (&bytes[..end], end + 2);
    let (mark, text) = line.split_first()?;
    let number = || std::str::from_utf8(text).ok()?.parse::<i64>().ok();
    let mut written = match mark {
        b'+' | b'-' => [line, b"\r\n"].concat(),
        b':' => format!(":{}\r\n", number()?).into_bytes(),
        b'$' | b'*' if text == b"-1" => b"$-1\r\n".to_vec(),
        b'$' | b'*' => format!("{}{}\r\n", char::from(*mark), usize::try_from(number()?).ok()?).into_bytes(),
        _ => return None,
    };
    match mark {
        b'$' if text != b"-1" => {
            let length = usize::try_from(number()?).ok()?;
            let content = bytes.get(used..used.checked_add(length)?.checked_add(2)?)?;
            content.ends_with(b"\r\n").then(|| written.extend_from_slice(content))?;
            used += content.len();
        }
        b'*' if text != b"-1" => {
            for _ in 0..number()? {
                let (element, element_bytes) = read_simply(&bytes[used..])?;
                written.extend(element);
                used += element_bytes;
            }
        }
        _ => {}
    }
    Some((written, used))
}

#[test]
fn replies() {
    let corpus = corpus();
    run(
        "replies",
        |rng| corpus.mutated(rng),
        |_, input| {
            let mut at = 0;
            loop {
                let rest = &input[at..];
                let whole = parse(rest);
                let used = match &whole {
                    Ok(Some((_, used))) => *used,
                    _ => rest.len(),
                };
                assert!(used <= rest.len());
                // A beginning is incomplete, or says what the whole says; and nothing is taken back.
                let mut bad = false;
                for end in 0..used {
                    match parse(&rest[..end]) {
                        Ok(None) => assert!(!bad, "what is not RESP stays so"),
                        Ok(Some(value)) => panic!("{value:?} in {end} bytes of {used}"),
                        Err(_) => bad = true,
                    }
                }
                assert!(!bad || whole.is_err(), "refused within {used} bytes that are RESP");
                let simply = read_simply(rest);
                assert_eq!(simply.is_some(), matches!(whole, Ok(Some(_))), "read simply: {simply:?}");
                let Ok(Some((value, used))) = whole else { return };
                assert_eq!(parse(&rest[..used]), Ok(Some((value.clone(), used))));
                let mut written = Vec::new();
                let values = write(value, rest, &mut written);
                // The shortest value has three bytes.
                assert!(values * 3 <= used, "{values} values in {used} bytes");
                assert_eq!(Some((written, used)), simply);
                at += used;
            }
        },
    );
}
