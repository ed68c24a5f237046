//! The scheduler: queue, node snapshot, filter, score, bind. An ordinary API client.
