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
                let Ok(Some((value, used))) = whole else { return };
                assert_eq!(parse(&rest[..used]), Ok(Some((value.clone(), used))));
                let mut written = Vec::new();
                let values = write(value, rest, &mut written);
                // The shortest value has three bytes.
                assert!(values * 3 <= used, "{values} values in {used} bytes");
                let again = parse(&written).expect("RESP").expect("whole");
                let mut twice = Vec::new();
                write(again.0, &written, &mut twice);
                assert_eq!(twice.escape_ascii().to_string(), written.escape_ascii().to_string());
                at += used;
            }
        },
    );
}
