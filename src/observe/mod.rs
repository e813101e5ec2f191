//! What the data plane tells about itself: one record per connection, request and tunnel. Workers
//! format records into their own batches; a thread of the control plane writes the batches. Knows
//! nothing of the configuration's shape and nothing of sockets.

pub mod access_log;
