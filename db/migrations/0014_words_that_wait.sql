-- The words of a batch wait in their index's list until they are sorted in beside the projector. Those of 5,000 new
-- parcels are 7 MB, more than a list has by default: the batch itself had to sort them in. Each MB that waits costs a
-- search half a millisecond.
ALTER INDEX package_search_text SET (gin_pending_list_limit = 16384);
ALTER INDEX customer_listing_text SET (gin_pending_list_limit = 16384);
