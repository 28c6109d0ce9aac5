-- Documents, vectors and generations. Written by the embedder.

create extension if not exists vector;

create table feedback_loop.document (
    id         bigint generated always as identity unique,
    app        text not null default 'default',
    source     text not null,
    title      text not null,
    media_type text not null,
    data_hash  text not null,
    chunker    text not null,
    origin     text not null check (origin in ('folder', 'api')),
    updated_at timestamptz not null default now(),
    primary key (app, source)
);
comment on table feedback_loop.document is 'Today''s documents; a deleted one is not here';
comment on column feedback_loop.document.id is
    'A document that is deleted and comes again is another one: no generation shows its old text';
comment on column feedback_loop.document.origin is '''folder'', or ''api'': a folder''s reading deletes only its own';

create table feedback_loop.folder_file (
    app       text not null,
    source    text not null,
    data_hash text not null,
    primary key (app, source)
);
comment on table feedback_loop.folder_file is
    'What a folder''s files were when last read: a document that was deleted or replaced over the API'
    ' stays so until its file changes';

create table feedback_loop.document_chunk (
    app        text not null,
    source     text not null,
    ordinal    integer not null,
    chunk_hash text not null,
    primary key (app, source, ordinal),
    foreign key (app, source) references feedback_loop.document on delete cascade
);

create index document_chunk_hash on feedback_loop.document_chunk (chunk_hash);

create table feedback_loop.chunk (
    hash    text primary key,
    heading text not null,
    text    text not null
);
comment on table feedback_loop.chunk is 'Content by its hash: sha256 of heading and text';

create sequence feedback_loop.vector_table;

create table feedback_loop.model (
    id         smallint generated always as identity primary key,
    name       text not null unique,
    dimensions integer not null,
    table_name text not null unique
);
comment on table feedback_loop.model is 'Embedding models; the vectors of each are a table of their own, because HNSW needs one dimension';

create table feedback_loop.generation (
    id           bigint generated always as identity primary key,
    app          text not null,
    model        smallint not null references feedback_loop.model (id),
    chunker      text not null,
    base         bigint,
    reason       text not null,
    retrain      uuid,
    run          uuid,
    ratio        double precision,
    requested_by text not null default '',
    state        text not null default 'building' check (state in
                   ('building', 'built', 'promoted', 'rejected', 'superseded', 'failed')),
    chunks       integer not null,
    batches      integer not null,
    remaining    integer not null,
    embedded     integer not null default 0,
    counts       jsonb not null,
    gate         jsonb not null default '{}',
    detail       text,
    again        boolean not null default false,
    starts_anew  boolean not null,
    created_at   timestamptz not null default now(),
    finished_at  timestamptz
);
comment on table feedback_loop.generation is 'Kept for ever; of all but the last three, without membership';
comment on column feedback_loop.generation.remaining is 'Batches not yet embedded';
comment on column feedback_loop.generation.embedded is 'Chunks that its batches embedded so far';
comment on column feedback_loop.generation.again is
    'Documents changed while it was building: build again when it ends';
comment on column feedback_loop.generation.starts_anew is
    'Feedback drove it, or the model or chunker changed; else it inherits the votes of its base';
create index generation_app on feedback_loop.generation (app, id desc);

create table feedback_loop.generation_chunk (
    generation bigint not null references feedback_loop.generation (id) on delete cascade,
    chunk_hash text not null,
    document   bigint not null,
    source     text not null,
    ordinal    integer not null,
    primary key (generation, source, ordinal)
);
comment on table feedback_loop.generation_chunk is 'What a generation shows, where its document is still there';
create index generation_chunk_hash on feedback_loop.generation_chunk (chunk_hash, generation);

create table feedback_loop.batch (
    generation bigint not null references feedback_loop.generation (id) on delete cascade,
    number     integer not null,
    hashes     text[] not null, -- distinct, and in no other batch of the generation
    state      text not null default 'waiting' check (state in ('waiting', 'done')),
    done_at    timestamptz,
    primary key (generation, number)
);

comment on table feedback_loop.batch is 'Of builds under way';

create table feedback_loop.active_generation (
    app         text primary key,
    generation  bigint not null references feedback_loop.generation (id),
    promoted_at timestamptz not null default now()
);
comment on table feedback_loop.active_generation is 'The one pointer that promotion and rollback move';

create table feedback_loop.promotion (
    id          bigint generated always as identity primary key,
    app         text not null,
    generation  bigint not null,
    previous    bigint,
    kind        text not null check (kind in ('promotion', 'rollback')),
    why         text not null default '',
    promoted_at timestamptz not null default now()
);
comment on table feedback_loop.promotion is 'History of the pointer: which generation answered when';
create index promotion_time on feedback_loop.promotion (app, promoted_at desc);
