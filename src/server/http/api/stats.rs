//! `POST /api/stats`: how this node does.

use std::collections::BTreeMap;

use log::Level;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::answer::to_json;
use super::command::{ApiCommand, Begun, CommandContext, ListScope, Reach};
use super::schema::{Operation, answer, count, flag, nodes, object};
use crate::hub::{HubStats, Refused};
use crate::metric::MEMORY_BYTES;
use crate::protocol::{self, ErrorCode};
use crate::server::report::ServerReport;

pub(super) const STATS: ApiCommand = ApiCommand {
    name: "stats",
    reach: Reach::Everything,
    audit: Level::Debug,
    body_bytes_extra: 0,
    operation,
    run: report,
};

/// The body, which has no fields.
#[derive(Deserialize)]
struct StatsBody {}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReportView<'a> {
    version: &'static str,
    node_id: &'a str,
    started_at: u64,
    uptime_seconds: u64,
    connections: usize,
    users: usize,
    rooms: usize,
    messages_received: u64,
    messages_delivered: u64,
    restrictions: usize,
    memory: MemoryView,
    bus: BusView,
    nodes: ListScope,
}

/// What is held for peers, and how much may be.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MemoryView {
    bytes: u64,
    bytes_max: u64,
    shares: BTreeMap<&'static str, ShareView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ShareView {
    bytes: u64,
    bytes_max: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BusView {
    ready: bool,
    shared: bool,
    nodes_alive: u64,
}

fn operation() -> Operation {
    let share = || [("bytes", count("Bytes that are held for peers.")), ("bytesMax", count("How many may be."))];
    let [bytes, bytes_max] = share();
    let shares = json!({"type": "object", "additionalProperties": answer(share())});
    Operation {
        summary: "Tells how this node does.",
        request: object([]),
        response: answer([
            ("version", json!({"type": "string"})),
            ("nodeId", json!({"type": "string"})),
            ("startedAt", count("When the server was started, in Unix milliseconds.")),
            ("uptimeSeconds", count("For how long it has run.")),
            ("connections", count("Connections of clients.")),
            ("users", count("Distinct users.")),
            ("rooms", count("Rooms that are held.")),
            ("messagesReceived", count("Messages of clients since the start.")),
            ("messagesDelivered", count("Chat messages delivered to rooms since the start.")),
            ("restrictions", count("Bans and mutes in force.")),
            ("memory", answer([bytes, bytes_max, ("shares", shares)])),
            (
                "bus",
                answer([
                    ("ready", flag("Whether messages would be taken now.")),
                    ("shared", flag("Whether there may be other nodes.")),
                    ("nodesAlive", count("How many nodes are alive.")),
                ]),
            ),
            ("nodes", nodes()),
        ]),
    }
}

fn report(context: &mut CommandContext<'_>, body: &str) -> Result<Begun, Refused> {
    let StatsBody {} = protocol::parse_object(body)?;
    let Some(report) = context.report else {
        return Err((ErrorCode::Unavailable, "the API has just been turned on; try again".to_owned()));
    };
    let ServerReport { node, started, hub, .. } = report;
    let HubStats { connections, users, rooms, messages_received, messages_delivered, restrictions, .. } = *hub;
    let status = context.bus.status();
    Ok(Begun::Done(to_json(&ReportView {
        version: env!("CARGO_PKG_VERSION"),
        node_id: context.bus.node().unwrap_or(node),
        started_at: started.unix_ms,
        uptime_seconds: context.now.uptime.saturating_sub(started.uptime).as_secs(),
        connections,
        users,
        rooms,
        messages_received,
        messages_delivered,
        restrictions,
        memory: memory(context, report),
        bus: BusView { ready: status.is_ready, shared: status.shares_presence, nodes_alive: context.bus.nodes_alive() },
        nodes: ListScope::ThisNode,
    })))
}

fn memory(context: &CommandContext<'_>, report: &ServerReport<'_>) -> MemoryView {
    let mut found: BTreeMap<_, _> = report
        .shares
        .by_name()
        .into_iter()
        .map(|(share, bytes_max)| (share, ShareView { bytes: 0, bytes_max: bytes_max as u64 }))
        .collect();
    for metric in report.metrics().iter().chain(&context.bus.metrics()).filter(|metric| metric.name == MEMORY_BYTES) {
        if let Some(share) = metric.label.and_then(|(_, share)| found.get_mut(share)) {
            share.bytes += metric.value as u64;
        }
    }
    let (bytes, bytes_max) = found
        .values()
        .fold((0, 0_u64), |(bytes, bytes_max), share| (bytes + share.bytes, bytes_max.saturating_add(share.bytes_max)));
    MemoryView { bytes, bytes_max, shares: found }
}
