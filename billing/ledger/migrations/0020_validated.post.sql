-- Constraints that were added without looking at the rows that were there. Validating them hinders nobody, but takes as
-- long as reading the table.

alter table postings validate constraint charged_offset_of_customer;
alter table journal validate constraint journal_origin_check;
alter table journal validate constraint correction_attributed;
alter table journal validate constraint correction_linked;
