-- name: me
-- Who this connection is, and whether it may create roles.
select rolname as name, rolsuper or rolcreaterole as may_create from pg_roles where rolname = current_user;

-- name: find
-- Role $1, if it exists.
select rolsuper as superuser from pg_roles where rolname = $1;

-- name: names
-- The ledger's schema and role $1, quoted.
select quote_ident(current_schema()) as schema, quote_ident($1::text) as role;

-- name: tables
-- The ledger's tables and views (partitions left out: they are reached through their parent), and whether the database
-- refuses every change of their rows.
select c.relname as name, format('%I.%I', n.nspname, c.relname) as quoted,
       exists (select from pg_trigger t where t.tgrelid = c.oid and t.tgname = 'append_only') as append_only
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = current_schema() and c.relkind in ('r', 'p', 'v') and not c.relispartition
 order by c.relname;

-- name: pin_functions
-- The runtime role may make temporary tables, and these are found before all others unless a function says where it
-- looks: otherwise a temporary `journal` could tell the books' triggers anything. Of each trigger function, once.
do $$
declare
    target regprocedure;
begin
    for target in select p.oid::regprocedure from pg_proc p
                   where p.pronamespace = current_schema()::regnamespace and p.prorettype = 'trigger'::regtype
                     and not coalesce(array_to_string(p.proconfig, ','), '') like '%search_path=%' loop
        execute format('alter function %s set search_path = %I, pg_temp', target, current_schema());
    end loop;
end $$;
