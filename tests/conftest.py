"""The files that take longest begin, so that no worker is left alone with them at the end, and what their tests
share is made in one worker: `--dist worksteal` takes from the end of another's list."""
LONGEST = ['test_trust.py', 'test_commands_first_contact.py', 'test_fuzz.py', 'test_frozen.py']


def pytest_collection_modifyitems(items):
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))
