/* Generated from appliance/metrics/schema.toml by appliance.metrics.generate. */
#ifndef BAREWIRE_METRIC_PLACES_H
#define BAREWIRE_METRIC_PLACES_H

#define BW_METRICS_SCHEMA 0xd0470f3b87116b5fu

enum bw_counter {
    BW_COUNTER_DATAGRAMS_RECEIVED = 0, /* Datagrams taken from the endpoints */
    BW_COUNTER_MESSAGES_DELIVERED = 1, /* Messages delivered by the feeds, each sequence number once */
    BW_COUNTER_MESSAGES_LOST = 2, /* Sequence numbers that no line brought, retransmission included */
    BW_COUNTER_RETRANSMISSIONS_REQUESTED = 3, /* Requests for retransmission sent */
    BW_COUNTER_RETRANSMISSIONS_UNSENT = 4, /* Requests for retransmission that found no room or no next hop */
    BW_COUNTER_TRANSACTIONS_DECODED = 5, /* Transactions decoded and accepted */
    BW_COUNTER_TRANSACTIONS_REFUSED = 6, /* Messages that are no transaction under the fork's rules */
    BW_COUNTER_TRANSACTIONS_RESENT = 7, /* Transactions that had been missed and were sent again */
    BW_COUNTER_TRANSACTIONS_FROM_POOLS = 8, /* Transactions read from the pools of nodes, executable there */
    BW_COUNTER_TRANSACTIONS_QUEUED = 9, /* Transactions read from the pools of nodes, behind a gap in their sender's nonces */
    BW_COUNTER_TRANSACTIONS_FROM_BLOCKS = 10, /* Transactions that stood in a block, mined, pending or being built */
    BW_COUNTER_TRANSACTIONS_DUPLICATE = 11, /* Transactions whose hash was seen before */
    BW_COUNTER_TRANSACTIONS_MATCHED = 12, /* Matches of triggers on transactions not seen before */
    BW_COUNTER_SENDERS_RECOVERED = 13, /* Senders recovered from a signature before something could fire */
    BW_COUNTER_SIGNATURES_BAD = 14, /* Signatures of which no sender could be recovered */
    BW_COUNTER_SENDERS_ASKED = 15, /* Senders that worker processes were asked for; less those answered: their queue */
    BW_COUNTER_SENDERS_ANSWERED = 16, /* Answers of worker processes, those that nobody can have signed included */
    BW_COUNTER_SENDERS_UNASKED = 17, /* Senders that no worker could be asked for: its ring is full */
    BW_COUNTER_SHOTS_ASKED = 18, /* Times a trigger asked for its shot */
    BW_COUNTER_SHOTS_FIRED = 19, /* Shots handed to an endpoint */
    BW_COUNTER_DATAGRAMS_SENT = 20, /* Datagrams handed to the endpoints */
    BW_COUNTER_SENDS_REFUSED = 21, /* Sends that were refused: no permission, halted, a cap, no room, or a full journal */
    BW_COUNTER_STRATEGY_CALLS = 22, /* Matches handed to the strategy */
    BW_COUNTER_STRATEGY_TIMERS = 23, /* Calls of the strategy's timer */
    BW_COUNTER_STRATEGY_BLOCKS = 24, /* New blocks handed to the strategy */
    BW_COUNTER_STRATEGY_ERRORS = 25, /* Exceptions raised by the strategy; sending stops, receiving goes on */
    BW_COUNTER_STRATEGY_STALLS = 26, /* Calls of the strategy that took longer than they may */
    BW_COUNTERS = 27,
};

enum bw_histogram {
    BW_HISTOGRAM_WIRE_TO_MATCH_SECONDS = 0, /* Arrival of a datagram to its match in hand */
    BW_HISTOGRAM_WIRE_TO_WIRE_SECONDS = 1, /* Arrival of a datagram to the answer handed to the endpoint */
    BW_HISTOGRAM_TURN_SECONDS = 2, /* One busy turn of the loop */
    BW_HISTOGRAM_STRATEGY_SECONDS = 3, /* One call of the strategy */
    BW_HISTOGRAM_RING_SECONDS = 4, /* A record's way over a ring: published to taken */
    BW_HISTOGRAM_HOUSEKEEPING_SECONDS = 5, /* Time taken from the packets by one round of housekeeping */
    BW_HISTOGRAMS = 6,
};

#endif
