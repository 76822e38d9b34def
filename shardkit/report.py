def write(store, samples, description): store.put("report/index.html", b"stub")
