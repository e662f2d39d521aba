def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than a few seconds; scripts/check-deploy --quick leaves it out")
