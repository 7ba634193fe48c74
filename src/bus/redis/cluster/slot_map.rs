//! Which master of a cluster has which slots.

use crc16::{State, XMODEM};

use crate::bus::redis::connection::{HostPort, Value};

/// The number of slots in a cluster.
pub(crate) const SLOTS: usize = 16384;

/// The slot of a key: CRC16 of the part in braces, by the cluster specification. Each key of the
/// bus either has such a part or contains no braces.
pub(crate) fn slot_of_key(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    State::<XMODEM>::calculate(tag.unwrap_or(key).as_bytes()) % SLOTS as u16
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotMap {
    pub(crate) masters: Vec<HostPort>,
    /// For each slot, the index of its master in `masters`.
    pub(crate) owners: Vec<Option<u16>>,
}

impl SlotMap {
    /// Reads the answer to `CLUSTER SLOTS`. `asked` is the node that gave it, which may omit its
    /// own host.
    pub(super) fn read(value: Value<'_>, asked: &HostPort) -> Option<Self> {
        let mut slot_map = Self { masters: Vec::new(), owners: vec![None; SLOTS] };
        for range in value.items()? {
            let mut range = range.items()?;
            let (first, last) = (range.next()?.number()? as usize, range.next()?.number()? as usize);
            let mut master = range.next()?.items()?;
            let host = master.next()?.text().filter(|host| !host.is_empty()).unwrap_or(&asked.host).to_owned();
            let node = HostPort { host, port: master.next()?.number()?.try_into().ok()? };
            let index = slot_map.masters.iter().position(|known| *known == node).unwrap_or_else(|| {
                slot_map.masters.push(node);
                slot_map.masters.len() - 1
            });
            slot_map.owners.get_mut(first..=last)?.fill(Some(index.try_into().ok()?));
        }
        Some(slot_map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::redis::connection::resp;

    #[test]
    fn a_chart_is_read_and_what_is_none_refused() {
        let asked = HostPort { host: "here".to_owned(), port: 1 };
        let read = |text: &str| {
            let (value, _) = resp::parse(text.as_bytes()).unwrap().unwrap();
            SlotMap::read(value, &asked)
        };
        let slot_map = read(
            "*2\r\n*4\r\n:0\r\n:9\r\n*4\r\n$1\r\na\r\n:7\r\n$2\r\nid\r\n*0\r\n*2\r\n$1\r\nr\r\n:8\r\n\
             *3\r\n:11\r\n:16383\r\n*2\r\n$0\r\n\r\n:9\r\n",
        );
        let slot_map = slot_map.unwrap();
        assert_eq!(slot_map.masters.iter().map(HostPort::to_string).collect::<Vec<_>>(), ["a:7", "here:9"]);
        assert_eq!([0, 9, 10, 11, 16383].map(|slot| slot_map.owners[slot]), [Some(0), Some(0), None, Some(1), Some(1)]);
        for bad in ["+OK\r\n", "*1\r\n:1\r\n", "*1\r\n*3\r\n:0\r\n:16384\r\n*2\r\n$1\r\na\r\n:7\r\n"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn slots_are_those_of_redis() {
        for (key, number) in [("123456789", 0x31c3), ("roomcast:{123456789}:meta", 0x31c3), ("foo", 12182)] {
            assert_eq!(slot_of_key(key), number, "{key}");
        }
    }
}
