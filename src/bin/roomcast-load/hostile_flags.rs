//! The flags of the workload `hostile`: which attacks, under which names, from how many connections and addresses.

use clap::{Args, ValueEnum};

/// One way in which a peer that keeps within all limits may harm the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AttackKind {
    /// Messages with fresh ids in many rooms.
    Ids,
    /// Large messages, which push others out of the history.
    History,
    /// Members that ask for pages of history and read nothing.
    Unread,
    /// The same, but they read 430 bytes a second.
    Trickle,
    /// Messages whose last byte never comes.
    Unfinished,
    /// Joins that resume from an epoch of 15 kB.
    Epochs,
    /// Fresh rooms with long names, and a message in each.
    Rooms,
    /// Connect, join, hang up.
    HangUps,
    /// Messages in fragments of one byte.
    Fragments,
    /// Members that read pages of history again and again.
    Pages,
    /// Requests for the page at `/`.
    Gets,
    /// Members that all are in the same 60 rooms and talk there.
    BigRooms,
    /// The same with large messages.
    LoudRooms,
    /// Members that leave these rooms and join them again.
    Moves,
    /// Sockets that send nothing.
    Silent,
    /// Sockets that send the hello of TLS.
    Tls,
    /// Bytes without end after a request that was refused.
    Refused,
}

impl AttackKind {
    /// Its name on the command line and in the table.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether its connections become WebSockets, and so have a user id.
    pub(crate) fn has_users(self) -> bool {
        !matches!(self, Self::Gets | Self::Silent | Self::Tls | Self::Refused)
    }
}

/// The user ids of the hostile connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum UserNames {
    /// None: the server makes each a guest.
    Guests,
    /// Another one for each connection.
    Invented,
    /// Those of the healthy pair.
    Borrowed,
}

impl UserNames {
    /// Its name on the command line and in the table.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

#[derive(Debug, Args)]
pub(crate) struct HostileFlags {
    /// Connections that attack in the hostile workload. [default: 2000; with --quick 40]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) hostile_conns: Option<u32>,

    /// Addresses that they come from: 127.0.0.2 and on.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(crate) hostile_addresses: u32,

    /// The attacks of the hostile workload; repeat it or separate by commas. [default: all]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) attack: Vec<AttackKind>,

    /// The user ids of hostile connections; repeat it or separate by commas. [default: all]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) attack_names: Vec<UserNames>,
}

impl HostileFlags {
    /// The steps to run. Connections that have no user id attack once.
    pub(crate) fn steps(&self) -> Vec<(AttackKind, UserNames)> {
        let attacks = chosen(&self.attack);
        let names = chosen(&self.attack_names);
        let of_attack = |kind: AttackKind| {
            let count = if kind.has_users() { names.len() } else { 1 };
            names.iter().take(count).map(move |names| (kind, *names)).collect::<Vec<_>>()
        };
        attacks.into_iter().flat_map(of_attack).collect()
    }
}

fn chosen<T: ValueEnum>(named: &[T]) -> Vec<T> {
    if named.is_empty() { T::value_variants().to_vec() } else { named.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attack_comes_under_every_name_that_it_can_have() {
        let all = HostileFlags { hostile_conns: None, hostile_addresses: 1, attack: vec![], attack_names: vec![] };
        let with_users = AttackKind::value_variants().iter().filter(|kind| kind.has_users()).count();
        let without = AttackKind::value_variants().len() - with_users;
        assert_eq!(all.steps().len(), 3 * with_users + without);
        let chosen = HostileFlags {
            attack: vec![AttackKind::Tls, AttackKind::Ids],
            attack_names: vec![UserNames::Invented, UserNames::Borrowed],
            ..all
        };
        let expected = [
            (AttackKind::Tls, UserNames::Invented),
            (AttackKind::Ids, UserNames::Invented),
            (AttackKind::Ids, UserNames::Borrowed),
        ];
        assert_eq!(chosen.steps(), expected);
    }
}
