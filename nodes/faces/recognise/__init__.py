"""Who a face is: the recognisers as data, their embeddings, and what is reckoned with those."""
