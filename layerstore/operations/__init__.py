"""What can be done with a store, one verb a file. Operations join chunking, tar, oci and storage."""
