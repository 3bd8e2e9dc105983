from agr_utils.errors import require_course

require_course()
