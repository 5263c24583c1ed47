-- State of the sandbox. `seq` gives the order of creation; times are seconds since 1970, amounts minor units.
CREATE TABLE IF NOT EXISTS customers (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    name TEXT,
    email TEXT,
    description TEXT,
    metadata TEXT NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS payment_methods (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    token TEXT NOT NULL,
    customer TEXT REFERENCES customers (id)
) STRICT;

CREATE TABLE IF NOT EXISTS payment_intents (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0),
    amount_received INTEGER NOT NULL DEFAULT 0 CHECK (amount_received IN (0, amount)),
    currency TEXT NOT NULL,
    customer TEXT REFERENCES customers (id),
    payment_method TEXT REFERENCES payment_methods (id),
    description TEXT,
    metadata TEXT NOT NULL,
    status TEXT NOT NULL,
    last_payment_error TEXT,
    latest_charge TEXT,
    canceled_at INTEGER,
    cancellation_reason TEXT,
    CHECK ((status = 'succeeded') = (amount_received > 0))
) STRICT;

CREATE TABLE IF NOT EXISTS charges (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    payment_intent TEXT NOT NULL REFERENCES payment_intents (id),
    customer TEXT,
    payment_method TEXT NOT NULL,
    amount INTEGER NOT NULL,
    currency TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('succeeded', 'failed')),
    failure_code TEXT
) STRICT;

-- what a payment is for: it succeeds once
CREATE UNIQUE INDEX IF NOT EXISTS one_success ON charges (payment_intent) WHERE status = 'succeeded';

CREATE TABLE IF NOT EXISTS refunds (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    payment_intent TEXT NOT NULL REFERENCES payment_intents (id),
    charge TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0),
    currency TEXT NOT NULL,
    reason TEXT,
    metadata TEXT NOT NULL
) STRICT;

-- Refunds that succeeded, and then came back from the customer's bank: a closed card, say.
CREATE TABLE IF NOT EXISTS failed_refunds (
    id TEXT PRIMARY KEY REFERENCES refunds (id)
) STRICT;

CREATE TABLE IF NOT EXISTS idempotency_keys (
    key TEXT PRIMARY KEY,
    created INTEGER NOT NULL,
    endpoint TEXT NOT NULL,
    parameters BLOB NOT NULL,  -- a hash: what was sent is not kept
    request TEXT NOT NULL,
    status INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS faults (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    fault TEXT NOT NULL,
    remaining INTEGER NOT NULL,
    seconds REAL NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS disputes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    payment_intent TEXT NOT NULL REFERENCES payment_intents (id),
    charge TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (amount > 0),
    currency TEXT NOT NULL,
    status TEXT NOT NULL
) STRICT;

-- What is to be told to the webhook's endpoint; a row goes when it was told, or nobody wants to hear it.
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    type TEXT NOT NULL,
    object TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TRIGGER IF NOT EXISTS intent_changed AFTER UPDATE OF status ON payment_intents WHEN new.status <> old.status
BEGIN
    INSERT INTO events (type, object) VALUES (CASE new.status
        WHEN 'succeeded' THEN 'payment_intent.succeeded'
        WHEN 'canceled' THEN 'payment_intent.canceled'
        WHEN 'requires_action' THEN 'payment_intent.requires_action'
        ELSE 'payment_intent.payment_failed' END, new.id);
END;

CREATE TRIGGER IF NOT EXISTS charge_refunded AFTER INSERT ON refunds
BEGIN
    INSERT INTO events (type, object) VALUES ('charge.refunded', new.charge);
END;

CREATE TRIGGER IF NOT EXISTS refund_failed AFTER INSERT ON failed_refunds
BEGIN
    INSERT INTO events (type, object) VALUES ('charge.refund.updated', new.id), ('refund.failed', new.id);
END;

CREATE TRIGGER IF NOT EXISTS dispute_opened AFTER INSERT ON disputes
BEGIN
    INSERT INTO events (type, object) VALUES ('charge.dispute.created', new.id);
END;

CREATE TRIGGER IF NOT EXISTS dispute_closed AFTER UPDATE OF status ON disputes WHEN new.status IN ('won', 'lost')
BEGIN
    INSERT INTO events (type, object) VALUES ('charge.dispute.closed', new.id);
END;
