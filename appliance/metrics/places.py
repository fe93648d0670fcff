"""Generated from appliance/metrics/schema.toml by appliance.metrics.generate."""

from enum import IntEnum

__all__ = ["METRICS", "SCHEMA", "Counter", "Histogram"]

# Hash of the names and their places.
SCHEMA = 0xD0470F3B87116B5F


class Counter(IntEnum):
    """Places of the counters."""

    DATAGRAMS_RECEIVED = 0
    MESSAGES_DELIVERED = 1
    MESSAGES_LOST = 2
    RETRANSMISSIONS_REQUESTED = 3
    RETRANSMISSIONS_UNSENT = 4
    TRANSACTIONS_DECODED = 5
    TRANSACTIONS_REFUSED = 6
    TRANSACTIONS_RESENT = 7
    TRANSACTIONS_FROM_POOLS = 8
    TRANSACTIONS_QUEUED = 9
    TRANSACTIONS_FROM_BLOCKS = 10
    TRANSACTIONS_DUPLICATE = 11
    TRANSACTIONS_MATCHED = 12
    SENDERS_RECOVERED = 13
    SIGNATURES_BAD = 14
    SENDERS_ASKED = 15
    SENDERS_ANSWERED = 16
    SENDERS_UNASKED = 17
    SHOTS_ASKED = 18
    SHOTS_FIRED = 19
    DATAGRAMS_SENT = 20
    SENDS_REFUSED = 21
    STRATEGY_CALLS = 22
    STRATEGY_TIMERS = 23
    STRATEGY_BLOCKS = 24
    STRATEGY_ERRORS = 25
    STRATEGY_STALLS = 26


class Histogram(IntEnum):
    """Places of the histograms."""

    WIRE_TO_MATCH_SECONDS = 0
    WIRE_TO_WIRE_SECONDS = 1
    TURN_SECONDS = 2
    STRATEGY_SECONDS = 3
    RING_SECONDS = 4
    HOUSEKEEPING_SECONDS = 5


# Type and help of each, by the name that Prometheus knows.
METRICS: dict[str, tuple[str, str]] = {
    "barewire_datagrams_received_total": (
        "counter",
        "Datagrams taken from the endpoints",
    ),
    "barewire_messages_delivered_total": (
        "counter",
        "Messages delivered by the feeds, each sequence number once",
    ),
    "barewire_messages_lost_total": (
        "counter",
        "Sequence numbers that no line brought, retransmission included",
    ),
    "barewire_retransmissions_requested_total": (
        "counter",
        "Requests for retransmission sent",
    ),
    "barewire_retransmissions_unsent_total": (
        "counter",
        "Requests for retransmission that found no room or no next hop",
    ),
    "barewire_transactions_decoded_total": (
        "counter",
        "Transactions decoded and accepted",
    ),
    "barewire_transactions_refused_total": (
        "counter",
        "Messages that are no transaction under the fork's rules",
    ),
    "barewire_transactions_resent_total": (
        "counter",
        "Transactions that had been missed and were sent again",
    ),
    "barewire_transactions_from_pools_total": (
        "counter",
        "Transactions read from the pools of nodes, executable there",
    ),
    "barewire_transactions_queued_total": (
        "counter",
        "Transactions read from the pools of nodes, behind a gap in their sender's nonces",
    ),
    "barewire_transactions_from_blocks_total": (
        "counter",
        "Transactions that stood in a block, mined, pending or being built",
    ),
    "barewire_transactions_duplicate_total": (
        "counter",
        "Transactions whose hash was seen before",
    ),
    "barewire_transactions_matched_total": (
        "counter",
        "Matches of triggers on transactions not seen before",
    ),
    "barewire_senders_recovered_total": (
        "counter",
        "Senders recovered from a signature before something could fire",
    ),
    "barewire_signatures_bad_total": (
        "counter",
        "Signatures of which no sender could be recovered",
    ),
    "barewire_senders_asked_total": (
        "counter",
        "Senders that worker processes were asked for; less those answered: their queue",
    ),
    "barewire_senders_answered_total": (
        "counter",
        "Answers of worker processes, those that nobody can have signed included",
    ),
    "barewire_senders_unasked_total": (
        "counter",
        "Senders that no worker could be asked for: its ring is full",
    ),
    "barewire_shots_asked_total": (
        "counter",
        "Times a trigger asked for its shot",
    ),
    "barewire_shots_fired_total": (
        "counter",
        "Shots handed to an endpoint",
    ),
    "barewire_datagrams_sent_total": (
        "counter",
        "Datagrams handed to the endpoints",
    ),
    "barewire_sends_refused_total": (
        "counter",
        "Sends that were refused: no permission, halted, a cap, no room, or a full journal",
    ),
    "barewire_strategy_calls_total": (
        "counter",
        "Matches handed to the strategy",
    ),
    "barewire_strategy_timers_total": (
        "counter",
        "Calls of the strategy's timer",
    ),
    "barewire_strategy_blocks_total": (
        "counter",
        "New blocks handed to the strategy",
    ),
    "barewire_strategy_errors_total": (
        "counter",
        "Exceptions raised by the strategy; sending stops, receiving goes on",
    ),
    "barewire_strategy_stalls_total": (
        "counter",
        "Calls of the strategy that took longer than they may",
    ),
    "barewire_wire_to_match_seconds": (
        "histogram",
        "Arrival of a datagram to its match in hand",
    ),
    "barewire_wire_to_wire_seconds": (
        "histogram",
        "Arrival of a datagram to the answer handed to the endpoint",
    ),
    "barewire_turn_seconds": (
        "histogram",
        "One busy turn of the loop",
    ),
    "barewire_strategy_seconds": (
        "histogram",
        "One call of the strategy",
    ),
    "barewire_ring_seconds": (
        "histogram",
        "A record's way over a ring: published to taken",
    ),
    "barewire_housekeeping_seconds": (
        "histogram",
        "Time taken from the packets by one round of housekeeping",
    ),
    "barewire_metrics_unreadable": (
        "gauge",
        "Metrics files that are damaged or of another version; without the label `loop`",
    ),
    "barewire_loop_info": (
        "gauge",
        "Always 1, for each running loop; `process` is its process id",
    ),
    "barewire_loop_start_time_seconds": (
        "gauge",
        "When the loop started, since 1970",
    ),
    "barewire_loop_heartbeat_age_seconds": (
        "gauge",
        "Since the loop last showed that it lives; read it in the time namespace of the loop",
    ),
    "barewire_loop_time_seconds_total": (
        "counter",
        "Time spent, by `kind`: idle, busy, housekeeping, callback (the strategy)",
    ),
    "barewire_loop_turns_total": (
        "counter",
        "Turns of the loop, by `kind`",
    ),
    "barewire_loop_stalls_total": (
        "counter",
        "Turns that took longer than they may, by `cause`",
    ),
    "barewire_loop_longest_stall_seconds": (
        "gauge",
        "The longest stall, by `cause`",
    ),
    "barewire_loop_memory_bytes": (
        "gauge",
        "Resident memory of the loop's process",
    ),
    "barewire_loop_memory_growth_bytes": (
        "gauge",
        "Resident memory more than when the loop began: what a strategy keeps",
    ),
    "barewire_link_received_total": (
        "counter",
        "Frames, datagrams or records received, by `link`",
    ),
    "barewire_link_received_bytes_total": (
        "counter",
        "Bytes received, by `link`",
    ),
    "barewire_link_dropped_total": (
        "counter",
        "Arrived and thrown away, by `link`",
    ),
    "barewire_link_overruns_total": (
        "counter",
        "Overwritten or lost before they were looked at, by `link`",
    ),
    "barewire_link_refused_total": (
        "counter",
        "Not sent: no room, by `link`",
    ),
    "barewire_counted": (
        "untyped",
        "Whatever else is counted, by `part`, `of` (a source, say) and `cause`; once a second",
    ),
    "barewire_errors_total": (
        "counter",
        "Errors, by their text in `error`",
    ),
    "barewire_errors_lost_total": (
        "counter",
        "Distinct errors that found no place in the log",
    ),
}
