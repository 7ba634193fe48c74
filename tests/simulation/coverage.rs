//! Counts of everything that happens in a simulation, so that one without some event fails.

macro_rules! coverage {
    ($($name:ident,)*) => {
        /// How often each event happened.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub(crate) struct Coverage { $(pub(crate) $name: u64,)* }

        impl Coverage {
            pub(crate) fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// The events that never happened.
            pub(crate) fn missing(&self) -> Vec<&'static str> {
                let all = [$((stringify!($name), self.$name),)*];
                all.iter().filter(|(_, count)| *count == 0).map(|(name, _)| *name).collect()
            }
        }
    };
}

coverage! {
    frames,
    chats,
    acks,
    duplicates,
    recovered,
    not_recovered,
    fell_back_and_recovered,
    told_of_holes,
    told_of_epochs,
    restarted,
    looked_back,
    looked_back_to_the_end,
    looked_back_in_part,
    looks_back_refused,
    members,
    typing,
    torn,
    fallbacks,
    stalled,
    closed,
    rate_limited,
    owner_limited,
    deliveries_limited,
    room_busy,
    server_busy,
    unavailable,
    shutting_down,
    levelled,
    rounds_delayed,
    rounds_hastened,
    elsewhere,
    removed,
    refreshed,
    invalid_tokens,
    expired,
    replaced,
    kicked_for_sure,
    banned,
    muted,
    moderated,
    deletions,
    tombstones,
    purged,
    purged_in_part,
}
