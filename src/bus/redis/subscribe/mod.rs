//! The thread that receives what other nodes publish.

mod channels;
mod event;
mod subscriptions;
mod thread;

pub(crate) use self::channels::ChannelTable;
pub(crate) use self::event::SubscriberEvent;
pub(crate) use self::subscriptions::SubscriptionChange;
pub(crate) use self::thread::SubscriberThread;
