"A deprecated call in the library's own modules is an error in these tests; elsewhere it is a warning."
import pytest


@pytest.mark.parametrize('kind', ['DeprecationWarning', 'PendingDeprecationWarning', 'FutureWarning'])
def test_ours_are_errors(kind):
    warn = compile(f'import warnings; warnings.warn("old", {kind})', 'somewhere', 'exec')
    for ours in ('amf_nb', 'amf_nb.train.learner'):
        with pytest.raises(Warning, match='old'): exec(warn, {'__name__': ours})
    for other in ('fastai.learner', 'amf_nbx'):
        with pytest.warns(Warning, match='old'): exec(warn, {'__name__': other})
